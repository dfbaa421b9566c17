#include "tests/support/close.hpp"

#include "tensor/host_copy.hpp"

#include <algorithm>
#include <cmath>

namespace konclave {

testing::AssertionResult close(const std::vector<double>& actual,
                               const std::vector<double>& expected, const Tolerance& tolerance,
                               double typical) {
  if (actual.size() != expected.size()) {
    return testing::AssertionFailure()
           << actual.size() << " elements where " << expected.size() << " are expected";
  }
  const double floor = typical * typical * static_cast<double>(expected.size());
  double squares = 0, norm = 0, largest = typical, worst = 0;
  std::size_t place = 0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if (actual[i] == expected[i] && std::isinf(expected[i])) continue;
    const double difference = std::abs(actual[i] - expected[i]);
    if (!(difference <= worst)) {  // true for a NaN, which then stays the worst
      worst = difference;
      place = i;
    }
    squares += difference * difference;
    norm += expected[i] * expected[i];
    largest = std::max(largest, std::abs(expected[i]));
  }
  norm = std::max(norm, floor);
  const bool good = worst <= tolerance.element * largest &&
                    std::sqrt(squares) <= tolerance.norm * std::sqrt(norm);
  if (good) return testing::AssertionSuccess();
  return testing::AssertionFailure()
         << "|a - b| / |b| = " << std::sqrt(squares / norm) << " (" << tolerance.norm
         << " allowed); worst is element " << place << " of " << actual.size() << ": "
         << actual[place] << " where " << expected[place] << " is expected, largest " << largest
         << " (" << tolerance.element << " of it allowed)";
}

testing::AssertionResult close(const ExecSpace& exec, const AnyIn& actual, const AnyIn& expected,
                               const Tolerance& tolerance, double typical) {
  if (!same_shape(actual, expected)) {
    return testing::AssertionFailure()
           << actual.describe() << " where " << expected.describe() << " is expected";
  }
  return close(to_doubles(exec, actual), to_doubles(exec, expected), tolerance, typical);
}

}  // namespace konclave
