#include "layers/mlp.hpp"
#include "moe/moe_layer.hpp"
#include "ops/elementwise.hpp"
#include "tests/unit/model/workbench.hpp"

#include <cmath>
#include <map>
#include <memory>
#include <string>

namespace konclave {
namespace {

constexpr int kHidden = 5, kFfn = 3, kExperts = 4, kShared = 7, kTokens = 9;

MoeLayerConfig config(bool gated) {
  MoeConfig moe;
  moe.num_experts = kExperts;
  moe.ffn_hidden_size = kFfn;
  moe.shared_ffn_hidden_size = kShared;
  moe.shared_gate = gated;
  return {moe, kHidden, DType::fp64};
}

/// A layer with random parameters.
struct Layer : Workbench {
  explicit Layer(const MoeLayerConfig& settings)
      : layer("moe", /*index=*/0, settings, Groups::alone(), storage()) {
    layer.visit_parameters([&](Parameter& parameter) {
      parameters.emplace(parameter.name(), &parameter);
      set(parameter.grad(), 0);
    });
    randomised_leaves(exec, layer, 0.5);
    layer.prepare(exec, operations);
  }
  AnyView result() { return tensors.poisoned(DType::fp64, kTokens, kHidden); }
  std::vector<double> forward(const AnyIn& x) {
    const AnyView y = result();
    layer.forward(context(), step, x, /*residual=*/{}, saved, y);
    return to_doubles(exec, y);
  }

  MoeLayer layer;
  MoeStep step = moe_step({0, kTokens}, kTokens, /*layers=*/1, kExperts);
  MoeLayer::Saved saved;
  std::map<std::string, Parameter*> parameters;
};

TEST(SharedExperts, BackwardIsTheGradient) {
  for (const bool gated : {false, true}) {
    SCOPED_TRACE(gated ? "gated" : "not gated");
    Layer moe(config(gated));
    EXPECT_EQ(moe.parameters.size(), gated ? 8U : 7U);
    const AnyView x = moe.tensors.random("x", DType::fp64, kTokens, kHidden);
    moe.expect_layer_gradients(
        moe.layer, x,
        [&](const AnyIn& in, const AnyView& y) {
          moe.layer.prepare(moe.exec, moe.operations);
          moe.layer.forward(moe.context(), moe.step, in, /*residual=*/{}, moe.saved, y);
        },
        [&](const AnyIn& dy, const AnyView& dx) {
          moe.layer.backward(moe.context(), moe.saved, dy, dx);
        },
        [&] { return 0.0; });
  }
}

/// The layer without them, plus an MLP of the same weights, times the sigmoid of x . w.
TEST(SharedExperts, AreAnMlpBesideTheRoutedExperts) {
  for (const bool gated : {false, true}) {
    SCOPED_TRACE(gated ? "gated" : "not gated");
    Layer with(config(gated));
    MoeLayerConfig plain = config(false);
    plain.moe.shared_ffn_hidden_size = 0;
    Layer without(plain);
    const AnyView x = with.tensors.random("x", DType::fp64, kTokens, kHidden);
    std::vector<double> expected = without.forward(x);  // parameters are random by their names

    Mlp mlp("moe.shared_experts", {kHidden, kShared, DType::fp64}, TensorParallel(Groups::alone()),
            with.storage());
    mlp.visit_parameters([&](Parameter& parameter) {
      from_doubles(with.exec, to_doubles(with.exec, with.parameters.at(parameter.name())->value()),
                   parameter.value());
    });
    mlp.prepare(with.exec, with.operations);
    Mlp::Saved saved;
    const AnyView shared = with.result();
    mlp.forward(with.context(), x, saved, shared);
    const std::vector<double> of_mlp = to_doubles(with.exec, shared), in = to_doubles(with.exec, x);
    std::vector<double> weight(kHidden, 0);
    if (gated) {
      weight = to_doubles(with.exec, with.parameters.at("moe.shared_experts.gate.weight")->value());
    }
    for (std::size_t t = 0; t < kTokens; ++t) {
      double product = 0;
      for (std::size_t h = 0; h < kHidden; ++h) product += in[t * kHidden + h] * weight[h];
      const double gate = gated ? 1 / (1 + std::exp(-product)) : 1;
      for (std::size_t h = 0; h < kHidden; ++h) {
        expected[t * kHidden + h] += gate * of_mlp[t * kHidden + h];
      }
    }
    EXPECT_TRUE(close(with.forward(x), expected, tolerance(DType::fp64)));
  }
}

TEST(SharedExperts, NoTokensAreNoTrouble) {
  Layer moe(config(/*gated=*/true));
  moe.step = moe.moe_step({0, 0}, 1, /*layers=*/1, kExperts);
  const AnyView none = moe.tensors.poisoned(DType::fp64, 0, kHidden);
  moe.layer.forward(moe.context(), moe.step, none, /*residual=*/{}, moe.saved, none);
  moe.layer.backward(moe.context(), moe.saved, none, none);
  for (const auto& [name, parameter] : moe.parameters) {
    for (const double value : to_doubles(moe.exec, parameter->grad())) EXPECT_EQ(value, 0) << name;
  }
}

}  // namespace
}  // namespace konclave
