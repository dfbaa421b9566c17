#pragma once

#include "ops/backend_list.hpp"
#include "tests/support/tensors.hpp"

#include <gtest/gtest.h>

#include <algorithm>
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

/// A weight (Out,In) or (L,Out,In) in the form that an offer wants it in.
inline PreparedWeight prepare(const ExecSpace& exec, Tensors& tensors, const WeightPacking& packing,
                              const GemmShape& shape, const AnyIn& weight) {
  const WeightForm form = packing.form_for(shape);
  if (form.as_stored()) return {weight};
  const std::int64_t matrices = weight.rank() == 3 ? weight.extent(0) : 1;
  const AnyView packed = tensors.poisoned(form.type, matrices, form.elements);
  const AnyIn rows = weight.reshape(matrices * shape.out, shape.in);
  for (std::int64_t e = 0; e < matrices; ++e) {
    packing.pack(exec, shape, rows.slice(e * shape.out, shape.out), 0, packed.slice(e, 1));
  }
  return {weight, packed, form.layout};
}

/// Expects that a matrix packed in strips of rows is the same as one packed at once.
inline void expect_same_in_strips(const ExecSpace& exec, const WeightPacking& packing,
                                  const GemmShape& shape) {
  Tensors tensors(exec);
  const AnyView weight = tensors.random("w", shape.type, shape.out, shape.in);
  const PreparedWeight whole = prepare(exec, tensors, packing, shape, weight);
  if (whole.packed.empty()) return;
  for (const std::int64_t strip : {WeightPacking::kRows, 3 * WeightPacking::kRows}) {
    const AnyView packed = tensors.poisoned(whole.packed.type(), 1, whole.packed.extent(1));
    for (std::int64_t first = 0; first < shape.out; first += strip) {
      const AnyView rows = weight.slice(first, std::min<std::int64_t>(strip, shape.out - first));
      packing.pack(exec, shape, tensors.copy(rows), first, packed);
    }
    EXPECT_EQ(to_doubles(exec, packed), to_doubles(exec, whole.packed))
        << describe(shape) << ", strips of " << strip;
  }
}

/// Expects it of matrices with fewer rows than a strip, as many, and some more.
inline void expect_same_in_strips(const ExecSpace& exec, const WeightPacking& packing, DType type) {
  for (const int out : {1, 32, 63, 64, 65, 96, 301}) {
    for (const int in : {1, 17, 64, 100}) {
      for (const GemmKind kind : {GemmKind::forward, GemmKind::data_gradient}) {
        expect_same_in_strips(exec, packing, {kind, out, in, type, type, false});
      }
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
