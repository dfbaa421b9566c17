#include "onednn/matmul.hpp"
#include "onednn/multiply.hpp"
#include "onednn/pieces.hpp"
#include "tests/support/close.hpp"
#include "tests/support/tensors.hpp"
#include "tests/unit/ops/offers.hpp"

#include <gtest/gtest.h>

namespace konclave {
namespace {

/// The primitives that multiply bf16 where the CPU can: every CPU runs them in fp32, so that their
/// layouts and sums are judged everywhere.
TEST(OnednnMatmul, AgreesWithSgemm) {
  constexpr int kOut = 13, kIn = 9;
  const ExecSpace exec;
  for (const GemmKind kind : kKinds) {
    for (const bool accumulate : {false, true}) {
      for (const int rows : {1, 7, 64, 7}) {  // the last one finds its primitive made
        Tensors tensors(exec);
        const bool forward = kind == GemmKind::forward;
        const bool of_weight = kind == GemmKind::weight_gradient;
        const GemmShape shape{kind, kOut, kIn, DType::fp32, DType::fp32, accumulate};
        const AnyIn a = tensors.random("a", DType::fp32, rows, forward ? kIn : kOut);
        const AnyIn b = tensors.random("b", DType::fp32, of_weight ? rows : kOut, kIn);
        const AnyView c =
            tensors.random("c", DType::fp32, of_weight ? kOut : rows, forward ? kOut : kIn);
        const AnyView expected = tensors.copy(c);

        onednn::matmul(ops::product_of(shape, a, b, c));

        onednn::multiply(exec, ops::product_of(shape, a, b, expected), {});
        EXPECT_TRUE(close(exec, c, expected, tolerance(DType::fp32)))
            << describe(shape) << ", " << rows << " rows";
      }
    }
  }
}

/// Rows that no primitive is made for are padded, and what lies behind them is not touched.
TEST(OnednnMatmul, PiecesGiveTheWholeProduct) {
  constexpr int kOut = 13, kIn = 9;
  const ExecSpace exec;
  for (const GemmKind kind : kKinds) {
    for (const bool accumulate : {false, true}) {
      for (const int rows : {1, 31, 32, 33, 95, 607}) {
        Tensors tensors(exec);
        const bool forward = kind == GemmKind::forward;
        const bool of_weight = kind == GemmKind::weight_gradient;
        const GemmShape shape{kind, kOut, kIn, DType::fp32, DType::fp32, accumulate};
        const AnyIn a = tensors.random("a", DType::fp32, rows, forward ? kIn : kOut);
        const AnyIn b = tensors.random("b", DType::fp32, of_weight ? rows : kOut, kIn);
        const AnyView c =
            tensors.random("c", DType::fp32, (of_weight ? kOut : rows) + 1, forward ? kOut : kIn);
        const AnyView expected = tensors.copy(c);
        const std::int64_t written = c.extent(0) - 1;
        const AnyView workspace = tensors.workspace(onednn::pieces_workspace(shape), DType::fp32);

        onednn::multiply_in_pieces(ops::product_of(shape, a, b, c.slice(0, written)), workspace);

        onednn::multiply(exec, ops::product_of(shape, a, b, expected.slice(0, written)), {});
        EXPECT_TRUE(close(exec, c, expected, tolerance(DType::fp32)))
            << describe(shape) << ", " << rows << " rows";
      }
    }
  }
}

}  // namespace
}  // namespace konclave
