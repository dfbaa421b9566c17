#include "tensor/compare.hpp"

#include "base/error.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace konclave {

Difference difference(const std::vector<double>& a, const std::vector<double>& b) {
  require(a.size() == b.size(), "difference: sizes differ");
  double largest = 0, squares = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = a[i] - b[i];
    if (std::isnan(d)) {
      constexpr double kInfinity = std::numeric_limits<double>::infinity();
      return {kInfinity, kInfinity};
    }
    largest = std::max(largest, std::abs(d));
    squares += d * d;
    norm += b[i] * b[i];
  }
  return {largest, norm > 0 ? std::sqrt(squares / norm) : std::sqrt(squares)};
}

}  // namespace konclave
