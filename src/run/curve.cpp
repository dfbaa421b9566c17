#include "run/curve.hpp"

#include <algorithm>

namespace konclave {

Curve thinned(const Curve& curve, std::size_t most) {
  if (curve.size() <= most) return curve;
  Curve result;
  const auto keep = [&](std::size_t point) { result.add(curve.step[point], curve.value[point]); };
  const std::size_t inner = curve.size() - 2, stretches = (most - 2) / 2;
  keep(0);
  for (std::size_t stretch = 0; stretch < stretches; ++stretch) {
    const std::size_t begin = 1 + inner * stretch / stretches;
    const std::size_t end = 1 + inner * (stretch + 1) / stretches;
    const auto first = curve.value.begin() + static_cast<std::ptrdiff_t>(begin);
    const auto last = curve.value.begin() + static_cast<std::ptrdiff_t>(end);
    const auto [least, greatest] = std::minmax_element(first, last);
    const auto a = static_cast<std::size_t>(std::min(least, greatest) - curve.value.begin());
    const auto b = static_cast<std::size_t>(std::max(least, greatest) - curve.value.begin());
    keep(a);
    if (b != a) keep(b);
  }
  keep(curve.size() - 1);
  return result;
}

}  // namespace konclave
