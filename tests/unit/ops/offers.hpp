#pragma once

#include "ops/backend_list.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace konclave {

inline constexpr DType kTypes[] = {DType::bf16, DType::fp32, DType::fp64};
inline constexpr GemmKind kKinds[] = {GemmKind::forward, GemmKind::data_gradient,
                                      GemmKind::weight_gradient};

/// The offers that accept a shape, `reference` left out.
template <typename Offer, typename Shape>
std::vector<Offer> accepting(const std::vector<Offer>& offers, const Shape& shape) {
  std::vector<Offer> found;
  for (const Offer& offer : offers) {
    if (offer.backend != "reference" && offer.refuses(shape).empty()) found.push_back(offer);
  }
  return found;
}

/// What a backend says to a shape: "" when it accepts, "not built" when it is not there.
template <typename Offer, typename Shape>
std::string answer(const std::vector<Offer>& offers, std::string_view backend, const Shape& shape) {
  for (const Offer& offer : offers) {
    if (offer.backend == backend) return offer.refuses(shape);
  }
  return "not built";
}

/// The type whose tolerance holds for a product: sums are taken for `type`, then rounded.
inline DType judged_as(const GemmShape& shape) {
  return shape.result == DType::bf16  ? DType::bf16
         : shape.type == shape.result ? shape.type
                                      : DType::fp32;
}

/// Products of every kind, type, result and with and without accumulation.
inline std::vector<GemmShape> all_shapes(int out, int in) {
  std::vector<GemmShape> shapes;
  for (const GemmKind kind : kKinds) {
    for (const DType type : kTypes) {
      for (const DType result : kTypes) {
        for (const bool accumulate : {false, true}) {
          shapes.push_back({kind, out, in, type, result, accumulate});
        }
      }
    }
  }
  return shapes;
}

}  // namespace konclave
