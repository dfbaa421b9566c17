#include "deck/alternatives.hpp"

#include "base/text.hpp"

#include <algorithm>
#include <cstdlib>
#include <vector>

namespace konclave::deck {

std::string numbers_that_do(std::int64_t most, std::int64_t value,
                            const std::function<bool(std::int64_t)>& does) {
  constexpr std::size_t kShown = 6;
  std::vector<std::int64_t> found;
  for (std::int64_t number = 1; number <= most; ++number) {
    if (does(number)) found.push_back(number);
  }
  std::stable_sort(found.begin(), found.end(), [&](std::int64_t a, std::int64_t b) {
    return std::abs(a - value) < std::abs(b - value);
  });
  if (found.size() > kShown) found.resize(kShown);
  std::sort(found.begin(), found.end());
  return any_of(found);
}

std::string divisors(std::int64_t number, std::int64_t value) {
  return numbers_that_do(number, value,
                         [&](std::int64_t divisor) { return number % divisor == 0; });
}

std::string multiples(std::int64_t unit, std::int64_t value) {
  const std::int64_t below = value / unit * unit;
  std::vector<std::int64_t> near = {below + unit};
  if (below > 0) near.insert(near.begin(), below);
  return any_of(near);
}

}  // namespace konclave::deck
