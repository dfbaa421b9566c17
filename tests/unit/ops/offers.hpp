#pragma once

#include "ops/backend_list.hpp"

#include <gtest/gtest.h>

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

/// Expects that a backend, when it is built, accepts a shape or refuses it with a sentence.
template <typename Offer, typename Shape>
void expect_answer(const std::vector<Offer>& offers, std::string_view backend, const Shape& shape,
                   bool accepts) {
  for (const Offer& offer : offers) {
    if (offer.backend == backend) {
      EXPECT_EQ(offer.refuses(shape).empty(), accepts) << backend << ": " << describe(shape);
    }
  }
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
