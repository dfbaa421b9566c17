#pragma once

#include "layers/context.hpp"
#include "layers/parameter.hpp"
#include "moe/moe_step.hpp"
#include "ops/backend_list.hpp"
#include "ops/elementwise.hpp"
#include "tests/support/close.hpp"
#include "tests/support/tensors.hpp"
#include "tests/support/view_differences.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace konclave {

/// Something that an objective depends on, and where backward leaves the gradient.
struct Leaf {
  std::string name;
  AnyView value, gradient;
};

/// All parameters of a model or layer, with values of N(init_value, spread): no gradient is then
/// small for a reason other than a mistake.
template <typename Module>
std::vector<Leaf> randomised_leaves(const ExecSpace& exec, Module& module, double spread) {
  std::vector<Leaf> leaves;
  module.visit_parameters([&](Parameter& parameter) {
    std::vector<double> values = random_values(parameter.name(), parameter.size());
    for (double& value : values) value = parameter.spec().init_value + spread * value;
    from_doubles(exec, values, parameter.value());
    leaves.push_back({parameter.name(), parameter.value(), parameter.grad()});
  });
  return leaves;
}

/// `gradient` against central differences of objective() at up to 8 elements of the leaf.
template <typename Objective>
void expect_gradient(const ExecSpace& exec, const Leaf& leaf, const std::vector<double>& gradient,
                     Objective&& objective) {
  constexpr std::uint64_t kSamples = 8;
  const auto size = static_cast<std::uint64_t>(leaf.value.size());
  const RandomPermutation order(/*seed=*/5, leaf.name, size);
  std::vector<std::size_t> places;
  std::vector<double> sampled;
  for (std::uint64_t i = 0; i < std::min(size, kSamples); ++i) {
    places.push_back(order(i));
    sampled.push_back(gradient[places.back()]);
  }
  // The objectives are of order 1, so that differences are good to 1e-11 at best.
  EXPECT_TRUE(close(sampled, view_differences(exec, leaf.value, places, objective),
                    kDifferenceTolerance, /*typical=*/0.005))
      << leaf.name;
}

/// Memory and operations for layers in fp64.
class Workbench {
 public:
  Context context() { return {exec, operations, activations, scratch}; }
  ParameterStorage storage() { return {&weights, &gradients}; }

  /// Sequences of given lengths, the first position of each counting up from `first`.
  Sequences sequences(const std::vector<int>& lengths, int first = 0) {
    std::vector<int> offsets{0}, positions;
    for (const int length : lengths) {
      for (int i = 0; i < length; ++i) positions.push_back(first + i);
      offsets.push_back(offsets.back() + length);
      first += 2;
    }
    return {static_cast<int>(lengths.size()),
            offsets.back(),
            *std::max_element(lengths.begin(), lengths.end()),
            tensors.integers(offsets),
            tensors.integers(positions),
            {}};
  }

  /// A training step over L MoE layers of E experts, with statistics of 0, all of the global batch
  /// in it. Each routing window is a sequence of `tokens` tokens, of which rows offsets(w) ..
  /// offsets(w+1)-1 are here; `places` of the rows in their windows count up if not given.
  MoeStep moe_step(const std::vector<int>& offsets, std::int64_t tokens, int layers, int experts,
                   std::vector<int> places = {}) {
    const int count = static_cast<int>(offsets.size()) - 1;
    if (places.empty()) {
      for (int w = 0; w < count; ++w) {
        const auto at = static_cast<std::size_t>(w);
        for (int row = offsets[at]; row < offsets[at + 1]; ++row) {
          places.push_back(row - offsets[at]);
        }
      }
    }
    const AnyView sums = tensors.poisoned(DType::fp64, layers, MoeStatistics::columns(experts));
    const AnyView bias = tensors.poisoned(DType::fp32, layers, experts);
    const AnyView load = tensors.poisoned(DType::fp64, layers, experts);
    for (const AnyView& view : {sums, bias, load}) set(view, 0);
    MoeStep step;
    step.windows = {count, tensors.integers(offsets), tokens,
                    count, tensors.integers(offsets), tensors.integers(places)};
    step.scale = {1.0 / count, 1.0 / std::max(1, offsets.back()), 1.0 / count};
    step.statistics.sums = sums.as2<double>();
    step.state = {bias.as2<float>(), load.as2<double>()};
    step.training = true;
    return step;
  }

  void set(const AnyView& view, double value) const {
    from_doubles(exec, std::vector<double>(static_cast<std::size_t>(view.size()), value), view);
  }

  /// forward(x, y) and backward(dy, dx) of a layer y (T,H) of x (T,H), with extra() for losses
  /// that it writes elsewhere: gradients of sum(y * random) + extra() against differences; that
  /// backward adds to gradients of parameters and overwrites dx; and that dx may be dy.
  template <typename Layer, typename Forward, typename Backward, typename Extra>
  void expect_layer_gradients(Layer& layer, const AnyView& x, Forward&& forward,
                              Backward&& backward, Extra&& extra) {
    const std::int64_t tokens = x.extent(0), hidden = x.extent(1);
    const AnyView y = tensors.poisoned(DType::fp64, tokens, hidden);
    const AnyView dy = tensors.random("dy", DType::fp64, tokens, hidden);
    const AnyView dx = tensors.poisoned(DType::fp64, tokens, hidden);
    const AnyView on_dy = tensors.copy(dy);
    const std::vector<double> upstream = to_doubles(exec, dy);
    const std::vector<Leaf> leaves = randomised_leaves(exec, layer, 0.5);
    const auto objective = [&] {
      layer.prepare(exec, operations);
      activations.rewind({});
      forward(x, y);
      return dot(to_doubles(exec, y), upstream) + extra();
    };
    constexpr double kStart = 0.5;
    for (const Leaf& leaf : leaves) set(leaf.gradient, kStart);
    objective();
    backward(dy, dx);
    std::vector<std::vector<double>> found;
    for (const Leaf& leaf : leaves) {
      found.push_back(to_doubles(exec, leaf.gradient));
      for (double& value : found.back()) value -= kStart;
    }
    objective();  // backward may use up what forward saved
    backward(on_dy, on_dy);
    EXPECT_TRUE(close(exec, on_dy, dx, tolerance(DType::fp64))) << "dx is dy";
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      std::vector<double> twice = found[i];
      for (double& value : twice) value = 2 * value + kStart;
      EXPECT_TRUE(close(to_doubles(exec, leaves[i].gradient), twice, tolerance(DType::fp64)))
          << leaves[i].name << " is not added to";
      expect_gradient(exec, leaves[i], found[i], objective);
    }
    expect_gradient(exec, {"x", x, dx}, to_doubles(exec, dx), objective);
  }
  template <typename Layer, typename Forward, typename Backward>
  void expect_layer_gradients(Layer& layer, const AnyView& x, Forward&& forward,
                              Backward&& backward) {
    expect_layer_gradients(layer, x, forward, backward, [] { return 0.0; });
  }

  ExecSpace exec;
  Tensors tensors{exec};
  MemoryAccount account;
  Arena weights{account, MemoryClass::weights, "weights"};
  Arena gradients{account, MemoryClass::gradients, "gradients"};
  Arena activations{account, MemoryClass::activations, "activations"};
  Arena scratch{account, MemoryClass::buffers, "scratch"};
  Operations operations{built_backends(), {}, account};
};

}  // namespace konclave
