#include "onednn/matmul.hpp"
#include "onednn/multiply.hpp"
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

}  // namespace
}  // namespace konclave
