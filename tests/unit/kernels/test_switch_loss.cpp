#include "ops/switch_loss.hpp"
#include "tests/unit/kernels/kernel_test.hpp"

#include <algorithm>

namespace konclave {
namespace {

class SwitchLoss : public KernelTest {
 protected:
  struct Result {
    std::vector<double> loss, slope;
  };
  Result run(DType type, int windows, std::int64_t window_tokens, const std::vector<double>& counts,
             const std::vector<double>& sums, int top_k, double coefficient, double scale) {
    const std::int64_t experts = static_cast<std::int64_t>(counts.size()) / std::max(windows, 1);
    const AnyView slope = tensors_.poisoned(type, windows, experts);
    const View1<double> loss = doubles(windows);
    ops::switch_loss(exec_, window_tokens, values(windows, experts, counts),
                     values(windows, experts, sums), top_k, coefficient, scale, loss, slope);
    return {to_host(exec_, loss), read(slope).values};
  }

 private:
  View2<double> values(int windows, std::int64_t experts, const std::vector<double>& all) {
    return tensors_.values(DType::fp64, all, windows, experts).as2<double>();
  }
};

/// Two windows of 4 tokens, 3 experts, K = 1, c = 0.5; the factor is E c / (K Tw^2).
TEST_F(SwitchLoss, IsRightByHand) {
  for (const DType type : kAccumTypes) {
    const Result result = run(type, /*windows=*/2, /*window_tokens=*/4, {3, 1, 0, 0, 2, 2},
                              {2, 1, 1, 0.5, 0.25, 3.25},
                              /*top_k=*/1, /*coefficient=*/0.5, /*scale=*/0.25);
    const double factor = 1.5 / 16;
    EXPECT_TRUE(close(result.loss, {factor * 7, factor * 7}, tolerance(type)));
    EXPECT_TRUE(close(result.slope,
                      {factor * 0.75, factor * 0.25, 0, 0, factor * 0.5, factor * 0.5},
                      tolerance(type)));
  }
}

TEST_F(SwitchLoss, IsTheCoefficientWhenBalancedAndZeroWithoutTokens) {
  const int experts = 4, top_k = 2, tokens = 6;
  const std::vector<double> counts{3, 3, 3, 3, 0, 0, 0, 0};
  const std::vector<double> sums{1.5, 1.5, 1.5, 1.5, 0, 0, 0, 0};
  const Result result = run(DType::fp64, 2, tokens, counts, sums, top_k, 0.01, 1);
  EXPECT_TRUE(close(result.loss, {0.01, 0}, tolerance(DType::fp64)));
  const double slope = experts * 0.01 / (top_k * tokens * tokens) * 3;
  EXPECT_TRUE(
      close(result.slope, {slope, slope, slope, slope, 0, 0, 0, 0}, tolerance(DType::fp64)));
}

TEST_F(SwitchLoss, NeedsTheTokensOfAWindow) {
  EXPECT_THROW(run(DType::fp64, 1, 0, {1, 1}, {1, 1}, 1, 1, 1), Error);
  EXPECT_TRUE(run(DType::fp64, 0, 0, {}, {}, 1, 1, 1).loss.empty());
}

}  // namespace
}  // namespace konclave
