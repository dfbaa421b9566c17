#include "layers/attention.hpp"
#include "layers/embedding.hpp"
#include "layers/mlp.hpp"
#include "tests/unit/model/workbench.hpp"

namespace konclave {
namespace {

TEST(SelfAttention, BackwardIsTheGradient) {
  struct Case {
    int heads, kv_heads;
    bool qk_norm, bias;
  };
  constexpr Case kCases[] = {
      {2, 2, false, false}, {4, 2, true, false}, {4, 1, false, true}, {6, 3, true, true}};
  for (const Case& each : kCases) {
    SCOPED_TRACE(testing::Message()
                 << each.heads << " heads, " << each.kv_heads << " of keys"
                 << (each.qk_norm ? ", qk_norm" : "") << (each.bias ? ", bias" : ""));
    Workbench bench;
    SelfAttentionConfig config{6, each.heads, each.kv_heads, 4, DType::fp64};
    config.qk_norm = each.qk_norm;
    config.qkv_bias = each.bias;
    SelfAttention layer("attention", config, Groups::alone(), bench.storage());
    const Rotary rotary(bench.exec, rotary_frequencies(4, 50, {}), 16, DType::fp64, bench.weights);
    const Sequences sequences = bench.sequences({3, 5, 1}, /*first=*/1);
    const AnyView x = bench.tensors.random("x", DType::fp64, 9, 6);
    SelfAttention::Saved saved;
    bench.expect_layer_gradients(
        layer, x,
        [&](const AnyIn& in, const AnyView& y) {
          layer.forward(bench.context(), rotary, sequences, in, saved, y);
        },
        [&](const AnyIn& dy, const AnyView& dx) {
          layer.backward(bench.context(), rotary, sequences, saved, dy, dx);
        });
  }
}

/// Attention sees differences of positions only, and nothing of other sequences or later tokens.
TEST(SelfAttention, SequencesStandForThemselves) {
  Workbench bench;
  SelfAttention layer("attention", {6, 2, 1, 4, DType::fp64}, Groups::alone(), bench.storage());
  randomised_leaves(bench.exec, layer, 0.5);
  layer.prepare(bench.exec, bench.operations);
  const Rotary rotary(bench.exec, rotary_frequencies(4, 50, {}), 32, DType::fp64, bench.weights);
  const AnyView x = bench.tensors.random("x", DType::fp64, 8, 6);
  const auto forward = [&](const AnyIn& rows, const std::vector<int>& lengths, int first) {
    SelfAttention::Saved saved;
    const AnyView y = bench.tensors.poisoned(DType::fp64, rows.extent(0), 6);
    layer.forward(bench.context(), rotary, bench.sequences(lengths, first), rows, saved, y);
    return to_doubles(bench.exec, y);
  };
  const std::vector<double> together = forward(x, {3, 5}, 0);
  const std::vector<double> shifted = forward(x, {3, 5}, 17);
  std::vector<double> apart = forward(x.slice(0, 3), {3}, 4);
  const std::vector<double> second = forward(x.slice(3, 5), {5}, 9);
  apart.insert(apart.end(), second.begin(), second.end());
  EXPECT_TRUE(close(shifted, together, tolerance(DType::fp64)));
  EXPECT_TRUE(close(apart, together, tolerance(DType::fp64)));
  const std::vector<double> beginning = forward(x.slice(3, 2), {2}, 0);
  EXPECT_TRUE(
      close(beginning, {together.begin() + 18, together.begin() + 30}, tolerance(DType::fp64)));
}

TEST(Mlp, BackwardIsTheGradient) {
  Workbench bench;
  Mlp layer("mlp", {5, 7, DType::fp64}, TensorParallel(Groups::alone()), bench.storage());
  const AnyView x = bench.tensors.random("x", DType::fp64, 6, 5);
  Mlp::Saved saved;
  bench.expect_layer_gradients(
      layer, x,
      [&](const AnyIn& in, const AnyView& y) { layer.forward(bench.context(), in, saved, y); },
      [&](const AnyIn& dy, const AnyView& dx) { layer.backward(bench.context(), saved, dy, dx); });
}

TEST(Linear, IsRightByHandAndAddsItsDataGradient) {
  Workbench bench;
  Linear layer("linear", {2, 3, DType::fp64, /*bias=*/true}, TensorParallel(Groups::alone()),
               bench.storage());
  std::vector<Parameter*> parameters;
  layer.visit_parameters([&](Parameter& parameter) { parameters.push_back(&parameter); });
  ASSERT_EQ(parameters.size(), 2U);
  EXPECT_EQ(parameters[0]->name(), "linear.weight");
  EXPECT_EQ(parameters[1]->name(), "linear.bias");
  from_doubles(bench.exec, {1, 2, 3, 4, 5, 6}, parameters[0]->value());
  from_doubles(bench.exec, {0.5, 0, -0.5}, parameters[1]->value());
  for (Parameter* parameter : parameters) bench.set(parameter->grad(), 1);
  layer.prepare(bench.exec, bench.operations);
  const AnyView x = bench.tensors.values(DType::fp64, {10, 1}, 1, 2);
  const AnyView y = bench.tensors.poisoned(DType::fp64, 1, 3);
  const AnyView dy = bench.tensors.values(DType::fp64, {1, 0, -1}, 1, 3);
  const AnyView dx = bench.tensors.values(DType::fp64, {100, 200}, 1, 2);

  layer.forward(bench.context(), x, y);
  layer.weight_gradient(bench.context(), x, dy);
  layer.data_gradient(bench.context(), dy, /*add=*/true, dx);

  const auto values = [&](const AnyIn& view) { return to_doubles(bench.exec, view); };
  EXPECT_EQ(values(y), (std::vector<double>{12.5, 34, 55.5}));
  EXPECT_EQ(values(parameters[0]->grad()), (std::vector<double>{11, 2, 1, 1, -9, 0}));
  EXPECT_EQ(values(parameters[1]->grad()), (std::vector<double>{2, 1, 0}));
  EXPECT_EQ(values(dx), (std::vector<double>{96, 196}));
}

TEST(Layers, AWeightIsNotUsedBeforeItIsPrepared) {
  Workbench bench;
  const Linear layer("linear", {2, 2, DType::fp64}, TensorParallel(Groups::alone()),
                     bench.storage());
  const AnyView x = bench.tensors.random("x", DType::fp64, 1, 2);
  EXPECT_THROW(layer.forward(bench.context(), x, x), Error);
}

}  // namespace
}  // namespace konclave
