#pragma once

#include "base/rng.hpp"
#include "tensor/host_copy.hpp"

#include <cstdint>
#include <string_view>
#include <vector>

namespace konclave {

/// `size` standard normal numbers; equal for equal purposes.
inline std::vector<double> random_values(std::string_view purpose, std::int64_t size) {
  const RandomStream stream(/*seed=*/1, purpose);
  std::vector<double> values;
  for (std::int64_t i = 0; i < size; ++i) {
    values.push_back(stream.normal(static_cast<std::uint64_t>(i)));
  }
  return values;
}

/// Fills a view with them, rounded to its type.
inline void fill_random(const ExecSpace& exec, std::string_view purpose, const AnyView& view) {
  from_doubles(exec, random_values(purpose, view.size()), view);
}

}  // namespace konclave
