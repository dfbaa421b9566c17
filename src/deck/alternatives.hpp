#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace konclave::deck {

/// "1, 2 or 4": the numbers from 1 to `most` that do, or the six of them that are nearest to
/// `value`; "" when there is none.
std::string numbers_that_do(std::int64_t most, std::int64_t value,
                            const std::function<bool(std::int64_t)>& does);

/// Those that divide `number`.
std::string divisors(std::int64_t number, std::int64_t value);

/// "30 or 36": the multiples of `unit` nearest to a value that is none, from `unit` on.
std::string multiples(std::int64_t unit, std::int64_t value);

}  // namespace konclave::deck
