#include "bench/statistics.hpp"

#include "base/error.hpp"

#include <algorithm>
#include <iterator>

namespace konclave {

Spread spread_of(std::vector<double> values) {
  require(!values.empty(), "statistics of no measurements");
  std::sort(values.begin(), values.end());
  const std::size_t upper = values.size() / 2, lower = (values.size() - 1) / 2;
  return {(values[lower] + values[upper]) / 2, values.front(), values.back(),
          static_cast<int>(std::ssize(values))};
}

}  // namespace konclave
