#pragma once

#include <cstddef>
#include <vector>

namespace konclave {

/// The gradient of a scalar function of `at` by central differences: f(std::vector<double>).
template <typename F>
std::vector<double> central_differences(F&& f, std::vector<double> at, double step = 1e-5) {
  std::vector<double> gradient;
  for (std::size_t i = 0; i < at.size(); ++i) {
    const double middle = at[i];
    at[i] = middle + step;
    const double above = f(at);
    at[i] = middle - step;
    const double below = f(at);
    at[i] = middle;
    gradient.push_back((above - below) / (2 * step));
  }
  return gradient;
}

}  // namespace konclave
