#include "moe/router_products.hpp"
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
class RouterProducts : public testing::TestWithParam<std::tuple<Types, int>> {
 protected:
  static constexpr int kExperts = 5, kHidden = 2048;  // so wide that a block has 32 rows in fp32
};

TEST_P(RouterProducts, AreThoseOfTheWholeMatrix) {
  const auto [types, tokens] = GetParam();
  Workbench bench;
  Parameter weight({"router.weight", {kExperts, kHidden}, accum_type(types.model), 0.02},
                   bench.storage());
  weight.initialise(bench.exec, /*seed=*/1);
  weight.prepare(bench.exec, bench.operations, 0);
  const AnyView x = bench.tensors.random("x", types.rows, tokens, kHidden);
  const AnyView l = bench.tensors.poisoned(types.router, tokens, kExperts);
  const AnyView dl = bench.tensors.random("dl", types.router, tokens, kExperts);
  const AnyView dx = bench.tensors.random("dx", types.rows, tokens, kHidden);
  const std::vector<double> w = to_doubles(bench.exec, weight.value());
  const std::vector<double> rows = to_doubles(bench.exec, x), d_logits = to_doubles(bench.exec, dl);
  std::vector<double> dx_expected = to_doubles(bench.exec, dx);

  router_logits(bench.context(), weight, x, l);
  std::vector<double> logits, dw(kExperts * kHidden);
  for (int t = 0; t < tokens; ++t) {
    for (int e = 0; e < kExperts; ++e) {
      double sum = 0;
      for (int h = 0; h < kHidden; ++h) {
        sum += at(rows, kHidden, t, h) * at(w, kHidden, e, h);
        dw[static_cast<std::size_t>(e * kHidden + h)] +=
            at(d_logits, kExperts, t, e) * at(rows, kHidden, t, h);
        dx_expected[static_cast<std::size_t>(t * kHidden + h)] +=
            at(d_logits, kExperts, t, e) * at(w, kHidden, e, h);
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

INSTANTIATE_TEST_SUITE_P(
    TypesAndTokens, RouterProducts,
    testing::Combine(testing::Values(Types{DType::bf16, DType::bf16, DType::fp32},
                                     Types{DType::bf16, DType::bf16, DType::fp64},
                                     Types{DType::fp32, DType::fp32, DType::fp32},
                                     Types{DType::fp32, DType::fp32, DType::fp64},
                                     Types{DType::fp64, DType::fp64, DType::fp64}),
                     testing::Values(0, 1, 32, 70)));

TEST(RouterProductBytes, AreThoseOfRowsAndWeightWhereBlocksAreNear) {
  const std::int64_t rows = std::int64_t{4096} * 1024 * 2, weight = std::int64_t{64} * 1024 * 4;
  const RouterProductBytes near = router_product_bytes(4096, 1024, 64, DType::bf16, DType::fp32);
  EXPECT_EQ(near.forward, rows + weight);
  EXPECT_EQ(near.backward, 3 * rows + 2 * weight);
  // A weight of 28 MiB is read by each of four blocks, and what is widened is no longer near.
  const RouterProductBytes far = router_product_bytes(4096, 7168, 1024, DType::bf16, DType::fp32);
  EXPECT_EQ(far.forward, 7 * (5 * rows + 4 * 16 * weight));
}

}  // namespace
}  // namespace konclave
