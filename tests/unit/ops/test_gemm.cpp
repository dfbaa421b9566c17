#include "tests/support/central_differences.hpp"
#include "tests/support/close.hpp"
#include "tests/support/tensors.hpp"
#include "tests/unit/ops/offers.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <utility>
#include <vector>

namespace konclave {
namespace {

class Gemm : public testing::Test {
 protected:
  /// The product of two given operands, `b` being W or x; c starts as random numbers when it is
  /// added to, and as NaN otherwise.
  std::vector<double> multiply(const GemmOffer& offer, const GemmShape& shape, const AnyIn& a,
                               const AnyIn& b) {
    const bool of_weight = shape.kind == GemmKind::weight_gradient;
    const std::int64_t rows = of_weight ? shape.out : a.extent(0);
    const std::int64_t columns = shape.kind == GemmKind::forward ? shape.out : shape.in;
    const AnyView c = shape.accumulate ? tensors_.random("c", shape.result, rows, columns)
                                       : tensors_.poisoned(shape.result, rows, columns);
    const PreparedWeight weight =
        of_weight ? PreparedWeight() : prepare(exec_, tensors_, offer.packing, shape, b);
    const AnyView workspace = tensors_.workspace(offer.workspace(shape, a.extent(0)), shape.type);
    offer.run(exec_, shape, {a, &weight, of_weight ? b : AnyIn(), c, workspace});
    return to_doubles(exec_, c);
  }

  std::vector<double> multiply_random(const GemmOffer& offer, const GemmShape& shape, int rows) {
    const bool forward = shape.kind == GemmKind::forward;
    const bool of_weight = shape.kind == GemmKind::weight_gradient;
    return multiply(offer, shape,
                    tensors_.random("a", shape.type, rows, forward ? shape.in : shape.out),
                    tensors_.random("b", shape.type, of_weight ? rows : shape.out, shape.in));
  }

  ExecSpace exec_;
  Tensors tensors_{exec_};
  std::vector<GemmOffer> offers_ = built_backends().gemm;
  GemmOffer reference_ = offers_.back();
};

TEST_F(Gemm, EveryOfferAgreesWithReference) {
  constexpr std::pair<int, int> kExtents[] = {{1, 1}, {2, 7}, {31, 17}, {64, 64}, {65, 129}};
  // 513 is one more than any backend takes at a time.
  constexpr int kRows[] = {0, 1, 2, 13, 64, 65, 513};
  for (const auto& [out, in] : kExtents) {
    for (const GemmShape& shape : all_shapes(out, in)) {
      const std::vector<GemmOffer> others = accepting(offers_, shape);
      for (const int rows : others.empty() ? std::vector<int>()
                                           : std::vector<int>(std::begin(kRows), std::end(kRows))) {
        tensors_ = Tensors(exec_);
        const std::vector<double> expected = multiply_random(reference_, shape, rows);
        for (const GemmOffer& offer : others) {
          EXPECT_TRUE(
              close(multiply_random(offer, shape, rows), expected, tolerance(judged_as(shape))))
              << offer.backend << ": " << describe(shape) << ", " << rows << " rows";
        }
      }
    }
  }
}

TEST_F(Gemm, WeightsArePackedInStripsAsAtOnce) {
  for (const DType type : kTypes) {
    for (const GemmOffer& offer :
         accepting(offers_, GemmShape{GemmKind::forward, 64, 64, type, type, false})) {
      SCOPED_TRACE(offer.backend);
      expect_same_in_strips(exec_, offer.packing, type);
    }
  }
}

TEST_F(Gemm, ReferenceIsRightByHand) {
  const AnyIn w = tensors_.values(DType::fp64, {1, 2, 3, 4}, 2, 2);
  const AnyIn x = tensors_.values(DType::fp64, {5, 6}, 1, 2);
  const AnyIn dy = tensors_.values(DType::fp64, {1, 10}, 1, 2);
  const auto shape = [](GemmKind kind) {
    return GemmShape{kind, 2, 2, DType::fp64, DType::fp64, false};
  };

  EXPECT_EQ(multiply(reference_, shape(GemmKind::forward), x, w), (std::vector<double>{17, 39}));
  EXPECT_EQ(multiply(reference_, shape(GemmKind::data_gradient), dy, w),
            (std::vector<double>{31, 42}));
  EXPECT_EQ(multiply(reference_, shape(GemmKind::weight_gradient), dy, x),
            (std::vector<double>{5, 6, 50, 60}));
}

TEST_F(Gemm, ReferenceRoundsAndAddsOnce) {
  // 1 + 2^-8 lies between two bf16 numbers and goes to the even one, 1; 3 + 1 + 2^-8 to 4.
  const AnyIn x = tensors_.values(DType::bf16, {1, 1.0 / 256}, 1, 2);
  const AnyIn w = tensors_.values(DType::bf16, {1, 1}, 1, 2);
  const AnyView y = tensors_.values(DType::bf16, {3}, 1, 1);
  const PreparedWeight weight{w};
  GemmShape shape{GemmKind::forward, 1, 2, DType::bf16, DType::bf16, true};

  reference_.run(exec_, shape, {x, &weight, {}, y, {}});

  EXPECT_EQ(to_doubles(exec_, y), std::vector<double>{4});
  shape.result = DType::fp32;
  shape.accumulate = false;
  EXPECT_EQ(multiply(reference_, shape, x, w), std::vector<double>{1 + 1.0 / 256});
}

TEST_F(Gemm, ReferenceGradientsAreThoseOfForward) {
  constexpr int kRows = 3, kOut = 4, kIn = 5;
  const auto shape = [](GemmKind kind) {
    return GemmShape{kind, kOut, kIn, DType::fp64, DType::fp64, false};
  };
  const AnyIn x = tensors_.random("x", DType::fp64, kRows, kIn);
  const AnyIn w = tensors_.random("w", DType::fp64, kOut, kIn);
  const AnyIn dy = tensors_.random("dy", DType::fp64, kRows, kOut);
  const std::vector<double> upstream = to_doubles(exec_, dy);
  const auto loss = [&](const AnyIn& some_x, const AnyIn& some_w) {
    const std::vector<double> y = multiply(reference_, shape(GemmKind::forward), some_x, some_w);
    return std::inner_product(y.begin(), y.end(), upstream.begin(), 0.0);
  };

  const std::vector<double> dx = central_differences(
      [&](const auto& at) { return loss(tensors_.values(DType::fp64, at, kRows, kIn), w); },
      to_doubles(exec_, x));
  const std::vector<double> dw = central_differences(
      [&](const auto& at) { return loss(x, tensors_.values(DType::fp64, at, kOut, kIn)); },
      to_doubles(exec_, w));

  EXPECT_TRUE(
      close(multiply(reference_, shape(GemmKind::data_gradient), dy, w), dx, kDifferenceTolerance));
  EXPECT_TRUE(close(multiply(reference_, shape(GemmKind::weight_gradient), dy, x), dw,
                    kDifferenceTolerance));
}

TEST_F(Gemm, BackendsAcceptTheirTypes) {
  for (const GemmShape& shape : all_shapes(8, 8)) {
    const bool bf16 = shape.type == DType::bf16 || shape.result == DType::bf16;
    const bool fp64 = shape.type == DType::fp64 || shape.result == DType::fp64;
    expect_answer(offers_, "onednn", shape, kHostAccessible && !fp64);
    expect_answer(offers_, "kokkos_kernels", shape, !bf16 && shape.type == shape.result);
    expect_answer(offers_, "reference", shape, true);
  }
}

}  // namespace
}  // namespace konclave
