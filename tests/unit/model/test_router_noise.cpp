#include "moe/moe_layer.hpp"
#include "moe/router_noise.hpp"
#include "tests/unit/model/workbench.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace konclave {
namespace {

constexpr int kExperts = 8, kHidden = 6;

MoeConfig noisy(double jitter, bool forced, double bias = 0) {
  MoeConfig moe;
  moe.num_experts = kExperts;
  moe.ffn_hidden_size = 3;
  moe.input_jitter = jitter;
  moe.force_load_balancing = forced;
  moe.force_bias = bias;
  return moe;
}

class Noise : public testing::Test, public Workbench {
 protected:
  /// A step over windows of `tokens` rows each, the first of which is this token of the run.
  MoeStep step_of(int windows, int tokens, std::int64_t first_token, std::int64_t number = 1) {
    std::vector<int> offsets;
    for (int w = 0; w <= windows; ++w) offsets.push_back(w * tokens);
    MoeStep step = moe_step(offsets, tokens, 1, kExperts);
    step.windows.first_token = first_token;
    step.seed = 7;
    step.number = number;
    return step;
  }
  std::vector<double> jittered(const MoeStep& step, double eps,
                               const std::string& name = "router") {
    const std::int64_t rows = step.windows.places.extent_int(0);
    const AnyView x = tensors.poisoned(DType::fp64, rows, kHidden);
    set(x, 1);
    RouterNoise(name, noisy(eps, false)).jitter(exec, step, x, x);
    return to_doubles(exec, x);
  }
  std::vector<double> forced(const MoeStep& step, double bias = 0) {
    const std::int64_t rows = step.windows.places.extent_int(0);
    const AnyView logits = tensors.poisoned(DType::fp64, rows, kExperts);
    RouterNoise("router", noisy(0, true, bias)).force(exec, step, logits);
    return to_doubles(exec, logits);
  }
  static double mean(const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  }
};

TEST_F(Noise, JitterIsUniformAroundOne) {
  const std::vector<double> factors = jittered(step_of(4, 500, 0), 0.25);
  EXPECT_NEAR(mean(factors), 1, 0.01);
  const auto [least, most] = std::minmax_element(factors.begin(), factors.end());
  EXPECT_GE(*least, 0.75);
  EXPECT_LT(*least, 0.751);
  EXPECT_LE(*most, 1.25);
  EXPECT_GT(*most, 1.249);
  double variance = 0;
  for (const double factor : factors) variance += (factor - 1) * (factor - 1);
  EXPECT_NEAR(variance / static_cast<double>(factors.size()), 0.25 * 0.25 / 3, 1e-3);
}

/// The same tokens as one micro-batch of two windows and as two of one; in windows of other sizes.
TEST_F(Noise, BelongsToTheToken) {
  const std::vector<double> whole = jittered(step_of(2, 10, 40), 0.1);
  const std::vector<double> second = jittered(step_of(1, 10, 50), 0.1);
  EXPECT_EQ(std::vector<double>(whole.begin() + 10 * kHidden, whole.end()), second);
  EXPECT_EQ(jittered(step_of(1, 20, 40), 0.1), whole);
  EXPECT_NE(jittered(step_of(2, 10, 60), 0.1), whole) << "the next step";
  EXPECT_NE(jittered(step_of(2, 10, 40), 0.1, "other"), whole) << "another layer";
  const std::vector<double> logits = forced(step_of(2, 10, 40));
  EXPECT_EQ(forced(step_of(1, 20, 40)), logits);
  EXPECT_NE(forced(step_of(1, 20, 60)), logits);
}

TEST_F(Noise, ForcedLogitsAreNormal) {
  const std::vector<double> logits = forced(step_of(4, 500, 0));
  EXPECT_NEAR(mean(logits), 0, 0.02);
  double variance = 0;
  for (const double logit : logits) variance += logit * logit;
  EXPECT_NEAR(variance / static_cast<double>(logits.size()), 1, 0.03);
}

/// What is added to the logits of an expert: the same for all tokens, new in each step above 0.
TEST_F(Noise, ForcedBiasIsOfAStepOrOfTheRun) {
  const auto bias_of = [&](double bias, std::int64_t number) {
    const std::vector<double> plain = forced(step_of(1, 5, 0, number));
    std::vector<double> with = forced(step_of(1, 5, 0, number), bias);
    for (std::size_t i = 0; i < with.size(); ++i) with[i] -= plain[i];
    for (std::size_t i = kExperts; i < with.size(); ++i) {
      EXPECT_NEAR(with[i], with[i % kExperts], 1e-14);
    }
    with.resize(kExperts);
    return with;
  };
  EXPECT_FALSE(close(bias_of(2, 1), bias_of(2, 2), tolerance(DType::fp64)));
  EXPECT_TRUE(close(bias_of(-2, 1), bias_of(-2, 2), tolerance(DType::fp64)));
  double squares = 0;
  for (std::int64_t number = 1; number <= 100; ++number) {
    for (const double value : bias_of(2, number)) squares += value * value;
  }
  EXPECT_NEAR(std::sqrt(squares / (100 * kExperts)), 2, 0.15);
}

TEST_F(Noise, EvaluationHasNone) {
  MoeStep step = step_of(1, 5, 0);
  step.training = false;
  EXPECT_FALSE(RouterNoise("router", noisy(0.5, false)).jitters(step));
  const AnyView logits = tensors.poisoned(DType::fp64, 5, kExperts);
  set(logits, 3);
  RouterNoise("router", noisy(0, true)).force(exec, step, logits);
  EXPECT_EQ(to_doubles(exec, logits), std::vector<double>(5 * kExperts, 3));
}

TEST_F(Noise, GradientsGoThroughTheJitter) {
  MoeConfig moe = noisy(0.5, false);
  moe.balancing = {"aux_loss"};
  moe.aux_loss_coefficients = {0.2};
  MoeLayer layer("moe", 0, {moe, kHidden, DType::fp64}, Groups::alone(), storage());
  MoeStep step = step_of(1, 9, 0);
  const AnyView sums(DType::fp64, step.statistics.sums.data(),
                     {1, MoeStatistics::columns(kExperts), 1}, 2);
  MoeLayer::Saved saved;
  expect_layer_gradients(
      layer, tensors.random("x", DType::fp64, 9, kHidden),
      [&](const AnyIn& in, const AnyView& y) {
        set(sums, 0);
        layer.prepare(exec, operations);
        layer.forward(context(), step, in, /*residual=*/{}, saved, y);
      },
      [&](const AnyIn& dy, const AnyView& dx) { layer.backward(context(), saved, dy, dx); },
      [&] { return to_doubles(exec, sums)[MoeStatistics::kAuxLoss]; });
}

}  // namespace
}  // namespace konclave
