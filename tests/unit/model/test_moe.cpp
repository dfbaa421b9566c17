#include "layers/mlp.hpp"
#include "moe/moe_layer.hpp"
#include "ops/elementwise.hpp"
#include "tests/unit/model/workbench.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <numeric>

namespace konclave {
namespace {

constexpr int kHidden = 5, kFfn = 3, kExperts = 4;
const int kColumns = MoeStatistics::columns(kExperts);

MoeLayerConfig config(int top_k, bool pre_softmax = false) {
  MoeConfig moe;
  moe.num_experts = kExperts;
  moe.top_k = top_k;
  moe.ffn_hidden_size = kFfn;
  moe.pre_softmax = pre_softmax;
  moe.balancing = {"aux_loss"};
  moe.aux_loss_coefficients = {0.3};
  moe.z_loss_coefficient = 0.05;
  return {moe, kHidden, DType::fp64};
}

/// One MoE layer, the second of its model, over routing windows of `offsets`.
struct Moe : Workbench {
  Moe(const MoeLayerConfig& settings, const std::vector<int>& offsets)
      : layer("moe", /*index=*/1, settings, Groups::alone(), storage()) {
    const int count = static_cast<int>(offsets.size()) - 1;
    step = moe_step(offsets, std::max(1, offsets.back() / count), /*layers=*/2, kExperts);
    sums = {DType::fp64, step.statistics.sums.data(), {2, kColumns, 1}, 2};
    layer.visit_parameters([&](Parameter& parameter) {
      parameters.emplace(parameter.name(), &parameter);
      set(parameter.grad(), 0);
    });
    randomised_leaves(exec, layer, 0.5);
  }
  void forward(const AnyIn& x, const AnyView& y) {
    set(sums, 0);
    layer.prepare(exec, operations);
    layer.forward(context(), step, x, /*residual=*/{}, saved, y);
  }
  void backward(const AnyIn& dy, const AnyView& dx) { layer.backward(context(), saved, dy, dx); }

  double statistic(int column) const {
    return to_doubles(exec, sums)[static_cast<std::size_t>(kColumns + column)];
  }
  /// Column 0 of the inputs becomes 1, so that these logits are added to those of every token.
  AnyView steer(const AnyView& x, const std::array<double, kExperts>& logits) {
    std::vector<double> values = to_doubles(exec, x);
    for (std::size_t i = 0; i < values.size(); i += kHidden) values[i] = 1;
    from_doubles(exec, values, x);
    const AnyView router = parameters.at("moe.router.weight")->value();
    std::vector<double> weight = to_doubles(exec, router);
    for (std::size_t e = 0; e < kExperts; ++e) weight[e * kHidden] = logits[e];
    from_doubles(exec, weight, router);
    return x;
  }
  /// Score of the last expert chosen over that of the first one left out, the nearest of any token.
  double margin() {
    const std::vector<double> scores = to_doubles(exec, saved.router.of_logits);
    double nearest = 1e9;
    for (std::size_t row = 0; row < scores.size(); row += kExperts) {
      std::vector<double> sorted(scores.begin() + static_cast<std::ptrdiff_t>(row),
                                 scores.begin() + static_cast<std::ptrdiff_t>(row + kExperts));
      std::sort(sorted.rbegin(), sorted.rend());
      const std::size_t top_k = saved.router.experts.extent(1);
      if (top_k < kExperts) nearest = std::min(nearest, sorted[top_k - 1] / sorted[top_k]);
    }
    return nearest;
  }

  MoeLayer layer;
  MoeStep step;
  MoeLayer::Saved saved;
  AnyView sums;
  std::map<std::string, Parameter*> parameters;
};

TEST(MoeLayer, BackwardIsTheGradientWithItsLosses) {
  for (const bool pre_softmax : {false, true}) {
    for (const int top_k : {1, 2, kExperts}) {
      SCOPED_TRACE(testing::Message() << "K = " << top_k << (pre_softmax ? ", pre" : ", post"));
      Moe moe(config(top_k, pre_softmax), {0, 4, 4, 9});
      const AnyView x = moe.tensors.random("x", DType::fp64, 9, kHidden);
      moe.expect_layer_gradients(
          moe.layer, x, [&](const AnyIn& in, const AnyView& y) { moe.forward(in, y); },
          [&](const AnyIn& dy, const AnyView& dx) { moe.backward(dy, dx); },
          [&] {
            return moe.statistic(MoeStatistics::kAuxLoss) + moe.statistic(MoeStatistics::kZLoss);
          });
      EXPECT_GT(moe.margin(), 1.001) << "a tie is too near for differences";
    }
  }
}

/// Other ways to choose and weigh; a choice by groups or with a bias is further from a tie than the
/// step of a difference.
TEST(MoeLayer, BackwardIsTheGradientForEveryRule) {
  struct Rule {
    std::string name, score_function;
    int top_k, num_groups, group_top_k;
    double scaling_factor;
    bool bias;
  };
  for (const Rule& rule : {Rule{"sigmoid of one", "sigmoid", 1, 0, 0, 1, false},
                           Rule{"sigmoid", "sigmoid", 2, 0, 0, 2.5, false},
                           Rule{"sigmoid of all", "sigmoid", kExperts, 0, 0, 1, false},
                           Rule{"biased sigmoid in groups", "sigmoid", 2, 2, 1, 1.5, true},
                           Rule{"softmax in groups", "softmax", 2, 2, 2, 0.5, false},
                           Rule{"biased softmax", "softmax", 3, 0, 0, 2, true}}) {
    SCOPED_TRACE(rule.name);
    MoeLayerConfig settings = config(rule.top_k);
    settings.moe.score_function = rule.score_function;
    settings.moe.num_groups = rule.num_groups;
    settings.moe.group_top_k = rule.group_top_k;
    settings.moe.scaling_factor = rule.scaling_factor;
    settings.moe.expert_bias = rule.bias;
    Moe moe(settings, {0, 4, 4, 9});
    const AnyView bias = moe.tensors.values(DType::fp32, {0, 0, 0, 0, -0.1, 0.2, 0.05, -0.3},
                                            /*rows=*/2, /*columns=*/kExperts);
    moe.step.state.expert_bias = bias.as2<float>();
    const AnyView x = moe.tensors.random("x", DType::fp64, 9, kHidden);
    moe.expect_layer_gradients(
        moe.layer, x, [&](const AnyIn& in, const AnyView& y) { moe.forward(in, y); },
        [&](const AnyIn& dy, const AnyView& dx) { moe.backward(dy, dx); },
        [&] {
          return moe.statistic(MoeStatistics::kAuxLoss) + moe.statistic(MoeStatistics::kZLoss);
        });
  }
}

/// A dense MLP with the weights of one expert.
std::unique_ptr<Mlp> mlp_of_expert(Moe& moe, int expert) {
  auto mlp = std::make_unique<Mlp>("moe.experts", MlpConfig{kHidden, kFfn, DType::fp64},
                                   TensorParallel(Groups::alone()), moe.storage());
  mlp->visit_parameters([&](Parameter& parameter) {
    const AnyView all = moe.parameters.at(parameter.name())->value();
    from_doubles(moe.exec, to_doubles(moe.exec, all.slice(expert, 1)), parameter.value());
    moe.set(parameter.grad(), 0);
  });
  mlp->prepare(moe.exec, moe.operations);
  return mlp;
}

TEST(MoeLayer, WithAllTokensAtOneExpertItIsThatMlp) {
  Moe moe(config(/*top_k=*/1), {0, 7});
  moe.step.scale = {};  // no auxiliary and no z-loss
  const AnyView x = moe.steer(moe.tensors.random("x", DType::fp64, 7, kHidden), {0, 0, 50, 0});
  const AnyView dy = moe.tensors.random("dy", DType::fp64, 7, kHidden);
  const auto result = [&] { return moe.tensors.poisoned(DType::fp64, 7, kHidden); };
  const AnyView y = result(), dx = result(), mlp_y = result(), mlp_dx = result();
  const std::unique_ptr<Mlp> mlp = mlp_of_expert(moe, 2);
  Mlp::Saved saved;

  moe.forward(x, y);
  moe.backward(dy, dx);
  mlp->forward(moe.context(), x, saved, mlp_y);
  mlp->backward(moe.context(), saved, dy, mlp_dx);

  const Tolerance allowed = tolerance(DType::fp64);
  EXPECT_EQ(moe.statistic(MoeStatistics::chosen(2)), 7);
  EXPECT_TRUE(close(moe.exec, y, mlp_y, allowed));
  EXPECT_TRUE(close(moe.exec, dx, mlp_dx, allowed));
  mlp->visit_parameters([&](const Parameter& parameter) {
    const AnyView all = moe.parameters.at(parameter.name())->grad();
    EXPECT_TRUE(close(to_doubles(moe.exec, all.slice(2, 1)), to_doubles(moe.exec, parameter.grad()),
                      allowed))
        << parameter.name();
  });
}

/// Weights of the chosen experts sum to 1, so that equal experts are one MLP, whatever the routes.
TEST(MoeLayer, OfEqualExpertsIsTheirMlp) {
  for (const int top_k : {1, 2, 3, kExperts}) {
    Moe moe(config(top_k), {0, 13});
    for (const auto& [name, parameter] : moe.parameters) {
      if (name == "moe.router.weight") continue;
      const std::vector<double> first = to_doubles(moe.exec, parameter->value().slice(0, 1));
      for (int e = 1; e < kExperts; ++e) {
        from_doubles(moe.exec, first, parameter->value().slice(e, 1));
      }
    }
    const AnyView x = moe.tensors.random("x", DType::fp64, 13, kHidden);
    const AnyView y = moe.tensors.poisoned(DType::fp64, 13, kHidden),
                  expected = moe.tensors.copy(y);
    const std::unique_ptr<Mlp> mlp = mlp_of_expert(moe, 3);
    Mlp::Saved saved;
    moe.forward(x, y);
    mlp->forward(moe.context(), x, saved, expected);
    EXPECT_TRUE(close(moe.exec, y, expected, tolerance(DType::fp64))) << "K = " << top_k;
  }
}

TEST(MoeLayer, AddsItsResultToAResidual) {
  Moe moe(config(/*top_k=*/2), {0, 6});
  const AnyView x = moe.tensors.random("x", DType::fp64, 6, kHidden);
  const AnyView residual = moe.tensors.random("residual", DType::fp64, 6, kHidden);
  const AnyView y = moe.tensors.poisoned(DType::fp64, 6, kHidden), sum = moe.tensors.copy(y);
  moe.forward(x, y);
  moe.layer.forward(moe.context(), moe.step, x, residual, moe.saved, sum);
  ops::add(moe.exec, y, residual, y);
  EXPECT_TRUE(close(moe.exec, sum, y, tolerance(DType::fp64)));
}

TEST(MoeLayer, AnExpertWithoutTokensHasNoGradient) {
  Moe moe(config(/*top_k=*/2), {0, 6});
  const AnyView x = moe.steer(moe.tensors.random("x", DType::fp64, 6, kHidden), {0, -50, 0, 0});
  const AnyView y = moe.tensors.poisoned(DType::fp64, 6, kHidden);
  moe.forward(x, y);
  moe.backward(moe.tensors.random("dy", DType::fp64, 6, kHidden), y);
  EXPECT_EQ(moe.statistic(MoeStatistics::chosen(1)), 0);
  for (const auto& [name, parameter] : moe.parameters) {
    if (name == "moe.router.weight") continue;
    for (const double value : to_doubles(moe.exec, parameter->grad().slice(1, 1))) {
      EXPECT_EQ(value, 0) << name;
    }
    for (const double value : to_doubles(moe.exec, parameter->grad().slice(0, 1))) {
      EXPECT_NE(value, 0) << name;
    }
  }
}

TEST(MoeLayer, NoTokensAreNoTrouble) {
  Moe moe(config(/*top_k=*/2), {0, 0});
  moe.step.scale = {1, 1, 1};
  const AnyView none = moe.tensors.poisoned(DType::fp64, 0, kHidden);
  moe.forward(none, none);
  moe.backward(none, none);
  for (int column = 0; column < kColumns; ++column) EXPECT_EQ(moe.statistic(column), 0);
  for (const auto& [name, parameter] : moe.parameters) {
    for (const double value : to_doubles(moe.exec, parameter->grad())) EXPECT_EQ(value, 0) << name;
  }
}

TEST(RoutingWindows, AuxiliaryLossIsTheMeanOfTheWindows) {
  const std::vector<int> offsets{0, 4, 8, 12};
  Moe whole(config(2), offsets);
  const AnyView x = whole.tensors.random("x", DType::fp64, 12, kHidden);
  const AnyView y = whole.tensors.poisoned(DType::fp64, 12, kHidden);
  whole.forward(x, y);

  double aux = 0, z = 0;
  std::vector<double> counts(kExperts);
  for (std::size_t w = 0; w < 3; ++w) {
    const int size = offsets[w + 1] - offsets[w];
    Moe window(config(2), {0, size});
    window.forward(x.slice(offsets[w], size), y.slice(offsets[w], size));
    aux += window.statistic(MoeStatistics::kAuxLoss) / 3;
    z += window.statistic(MoeStatistics::kZLoss) * size / 12;
    for (std::size_t e = 0; e < kExperts; ++e)
      counts[e] += window.statistic(MoeStatistics::chosen(static_cast<int>(e)));
  }
  EXPECT_GT(aux, 0.3) << "an auxiliary loss is at least its coefficient, up to sampling";
  EXPECT_NEAR(whole.statistic(MoeStatistics::kAuxLoss), aux, 1e-14);
  EXPECT_NEAR(whole.statistic(MoeStatistics::kZLoss), z, 1e-14);
  for (int e = 0; e < kExperts; ++e) {
    EXPECT_EQ(whole.statistic(MoeStatistics::chosen(e)), counts[static_cast<std::size_t>(e)]);
  }
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), 0.0), 2 * 12);
}

TEST(RoutingWindows, OneWindowIsNotTheMeanOfMany) {
  Moe one(config(2), {0, 12}), many(config(2), {0, 4, 8, 12});
  const AnyView x = one.tensors.random("x", DType::fp64, 12, kHidden);
  const AnyView y = one.tensors.poisoned(DType::fp64, 12, kHidden);
  one.forward(x, y);
  many.forward(x, y);
  EXPECT_GT(many.statistic(MoeStatistics::kAuxLoss) - one.statistic(MoeStatistics::kAuxLoss), 1e-3);
  EXPECT_NEAR(many.statistic(MoeStatistics::kZLoss), one.statistic(MoeStatistics::kZLoss), 1e-14)
      << "the z-loss knows no windows";
}

/// Statistics add up over micro-batches, in the layer's row alone.
TEST(MoeStatistics, AddUp) {
  Moe moe(config(2), {0, 6});
  const AnyView x = moe.tensors.random("x", DType::fp64, 6, kHidden);
  const AnyView y = moe.tensors.poisoned(DType::fp64, 6, kHidden);
  moe.forward(x, y);
  std::vector<double> twice = to_doubles(moe.exec, moe.sums);
  for (double& value : twice) value *= 2;
  moe.layer.forward(moe.context(), moe.step, x, /*residual=*/{}, moe.saved, y);
  const std::vector<double> sums = to_doubles(moe.exec, moe.sums);
  EXPECT_TRUE(close(sums, twice, tolerance(DType::fp64)));
  for (int column = 0; column < kColumns; ++column) {
    EXPECT_EQ(sums[static_cast<std::size_t>(column)], 0);
  }

  double squares = 0;
  for (const double lse : to_doubles(moe.exec, moe.saved.router.lse)) squares += lse * lse;
  EXPECT_NEAR(moe.statistic(MoeStatistics::kZLoss), 2 * 0.05 * squares / 6, 1e-14);
}

}  // namespace
}  // namespace konclave
