#include "deck/alternatives.hpp"

#include "base/text.hpp"

#include <algorithm>
#include <cstdlib>

namespace konclave::deck {

std::string any_of(const std::vector<std::int64_t>& numbers) {
  std::vector<std::string> words;
  for (const std::int64_t number : numbers) words.push_back(std::to_string(number));
  if (words.size() < 2) return join(words, "");
  const std::string last = words.back();
  words.pop_back();
  return join(words, ", ") + " or " + last;
}

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
  return below > 0 ? any_of({below, below + unit}) : any_of({unit});
}

}  // namespace konclave::deck
