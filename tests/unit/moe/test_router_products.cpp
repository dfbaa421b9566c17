#include "moe/router_cut.hpp"
#include "moe/router_products.hpp"
#include "ops/rows.hpp"
#include "tests/unit/model/workbench.hpp"

namespace konclave {
namespace {

/// Rows of one type, logits of another.
struct Types {
  DType model, rows, router;
};

double at(const std::vector<double>& matrix, std::int64_t columns, std::int64_t row,
          std::int64_t column) {
  return matrix[static_cast<std::size_t>(row * columns + column)];
}

/// Against plain sums, with a bound that rounding of a gradient to bf16 needs.
void check_products(const Types& types, int tokens, int experts, int hidden) {
  Workbench bench;
  Parameter weight({"router.weight", {experts, hidden}, accum_type(types.model), 0.02},
                   bench.storage());
  weight.initialise(bench.exec, /*seed=*/1);
  weight.prepare(bench.exec, bench.operations, 0);
  const AnyView x = bench.tensors.random("x", types.rows, tokens, hidden);
  const AnyView l = bench.tensors.poisoned(types.router, tokens, experts);
  const AnyView dl = bench.tensors.random("dl", types.router, tokens, experts);
  const AnyView dx = bench.tensors.random("dx", types.rows, tokens, hidden);
  const std::vector<double> w = to_doubles(bench.exec, weight.value());
  const std::vector<double> rows = to_doubles(bench.exec, x), d_logits = to_doubles(bench.exec, dl);
  std::vector<double> dx_expected = to_doubles(bench.exec, dx);

  router_logits(bench.context(), weight, x, l);
  std::vector<double> logits, dw(static_cast<std::size_t>(experts * hidden));
  for (int t = 0; t < tokens; ++t) {
    for (int e = 0; e < experts; ++e) {
      double sum = 0;
      for (int h = 0; h < hidden; ++h) {
        sum += at(rows, hidden, t, h) * at(w, hidden, e, h);
        dw[static_cast<std::size_t>(e * hidden + h)] +=
            at(d_logits, experts, t, e) * at(rows, hidden, t, h);
        dx_expected[static_cast<std::size_t>(t * hidden + h)] +=
            at(d_logits, experts, t, e) * at(w, hidden, e, h);
      }
      logits.push_back(sum);
    }
  }
  const Tolerance wide = tolerance(accum_type(types.rows));
  EXPECT_TRUE(close(to_doubles(bench.exec, l), logits, wide, /*typical=*/1)) << "l";

  weight.restart_gradient();
  for (int call = 1; call <= 2; ++call) {
    const AnyView again = bench.tensors.copy(dx);
    add_router_gradients(bench.context(), weight, dl, x, again);
    EXPECT_TRUE(close(to_doubles(bench.exec, again), dx_expected, tolerance(types.rows), 1));
    std::vector<double> added = dw;
    for (double& value : added) value *= call;
    EXPECT_TRUE(close(to_doubles(bench.exec, weight.grad()), added, wide, /*typical=*/8))
        << "call " << call;
  }
}

class RouterProducts : public testing::TestWithParam<std::tuple<Types, int>> {};

/// So wide that a block has 32 rows in fp32.
TEST_P(RouterProducts, AreThoseOfTheWholeMatrix) {
  const auto [types, tokens] = GetParam();
  check_products(types, tokens, /*experts=*/5, /*hidden=*/2048);
}

INSTANTIATE_TEST_SUITE_P(
    TypesAndTokens, RouterProducts,
    testing::Combine(testing::Values(Types{DType::bf16, DType::bf16, DType::fp32},
                                     Types{DType::bf16, DType::bf16, DType::fp64},
                                     Types{DType::fp32, DType::fp32, DType::fp32},
                                     Types{DType::fp32, DType::fp32, DType::fp64},
                                     Types{DType::fp64, DType::fp64, DType::fp64}),
                     testing::Values(0, 1, 32, 70)));

/// A weight that is not near, in strips of which the last is narrower.
TEST(RouterStrips, MakeTheProductsOfTheWholeMatrix) {
  const Types bf16{DType::bf16, DType::bf16, DType::fp32};
  if (ops::kHostExecution) {  // a device has no strips
    const RouterProduct product{700, 1100, 128, DType::bf16, DType::fp32};
    const RouterCut forward = forward_cut(product), backward = backward_cut(product);
    EXPECT_LT(forward.columns, 1100);
    EXPECT_NE(1100 % forward.columns, 0);
    EXPECT_LT(forward.rows, 700) << "several blocks of rows";
    EXPECT_LT(backward.columns, 1100);
    EXPECT_NE(1100 % backward.columns, 0);
  }
  for (const int tokens : {0, 1, 700}) check_products(bf16, tokens, 128, 1100);
  check_products({DType::bf16, DType::bf16, DType::fp64}, 70, 64, 1100);
  check_products({DType::fp32, DType::fp32, DType::fp64}, 70, 64, 1100);
}

TEST(RouterCut, IsOfWholeRowsWhereTheWeightIsNearOrNothingIsWidened) {
  for (const RouterProduct& product : {RouterProduct{4096, 1024, 64, DType::bf16, DType::fp32},
                                       RouterProduct{4096, 2048, 512, DType::fp32, DType::fp32},
                                       RouterProduct{0, 2048, 128, DType::bf16, DType::fp32}}) {
    EXPECT_EQ(forward_cut(product).columns, product.hidden);
    EXPECT_EQ(backward_cut(product).columns, product.hidden);
  }
}

TEST(RouterBytes, AreThoseOfRowsAndWeightWhereBlocksAreNear) {
  if (!ops::kHostExecution) GTEST_SKIP() << "a device takes a product in one piece";
  const RouterProduct product{4096, 1024, 64, DType::bf16, DType::fp32};
  const std::int64_t rows = std::int64_t{4096} * 1024 * 2, weight = std::int64_t{64} * 1024 * 4;
  const std::int64_t logits = std::int64_t{4096} * 64 * 4;
  EXPECT_EQ(forward_bytes(product, forward_cut(product)), rows + weight + logits);
  EXPECT_EQ(backward_bytes(product, backward_cut(product)), 3 * rows + 2 * weight + 2 * logits);
}

TEST(RouterBytes, OfALargeWeightCountEveryTimeThatItIsMet) {
  if (!ops::kHostExecution) GTEST_SKIP() << "a device takes a product in one piece";
  // 28 MiB, read by each of four blocks, and what is widened is no longer near.
  const RouterProduct far{4096, 7168, 1024, DType::bf16, DType::fp32};
  const std::int64_t rows = std::int64_t{4096} * 7168 * 2, weight = std::int64_t{1024} * 7168 * 4;
  const std::int64_t logits = std::int64_t{4096} * 1024 * 4;
  EXPECT_EQ(forward_bytes(far, forward_cut(far)), 5 * rows + 4 * weight + logits);

  // 1 MiB: 448 rows meet it at a time, in strips of 128 columns; backward in 7 of 320.
  const RouterProduct strips{4480, 2048, 128, DType::bf16, DType::fp32};
  const std::int64_t narrow = std::int64_t{4480} * 2048 * 2, mib = std::int64_t{1} << 20;
  const std::int64_t of_logits = std::int64_t{4480} * 128 * 4;
  EXPECT_EQ(forward_bytes(strips, forward_cut(strips)), narrow + (10 + 2) * mib + of_logits);
  EXPECT_EQ(backward_bytes(strips, backward_cut(strips)), 3 * narrow + 4 * mib + 7 * of_logits);
}

}  // namespace
}  // namespace konclave
