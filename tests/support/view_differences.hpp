#pragma once

#include "tensor/host_copy.hpp"
#include "tests/support/central_differences.hpp"

#include <cstddef>
#include <numeric>
#include <vector>

namespace konclave {

/// Central differences of objective(), a number that depends on a view of fp64, by the elements
/// `places` of the view. Two steps are combined so that third derivatives cancel, which are large
/// where a norm sees small numbers. The view has its values back afterwards.
template <typename Objective>
std::vector<double> view_differences(const ExecSpace& exec, const AnyView& view,
                                     const std::vector<std::size_t>& places,
                                     Objective&& objective) {
  const std::vector<double> original = to_doubles(exec, view);
  std::vector<double> start;
  for (const std::size_t place : places) start.push_back(original[place]);
  const auto at = [&](const std::vector<double>& values) {
    std::vector<double> moved = original;
    for (std::size_t i = 0; i < places.size(); ++i) moved[places[i]] = values[i];
    from_doubles(exec, moved, view);
    return static_cast<double>(objective());
  };
  constexpr double kStep = 1e-4;
  std::vector<double> gradient = central_differences(at, start, kStep);
  const std::vector<double> coarse = central_differences(at, start, 2 * kStep);
  for (std::size_t i = 0; i < gradient.size(); ++i) gradient[i] += (gradient[i] - coarse[i]) / 3;
  from_doubles(exec, original, view);
  return gradient;
}

/// The same by all elements.
template <typename Objective>
std::vector<double> view_differences(const ExecSpace& exec, const AnyView& view,
                                     Objective&& objective) {
  std::vector<std::size_t> places(static_cast<std::size_t>(view.size()));
  std::iota(places.begin(), places.end(), std::size_t{0});
  return view_differences(exec, view, places, objective);
}

/// sum of a[i] b[i]: with fixed random b, a scalar whose gradient by a is b.
inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

}  // namespace konclave
