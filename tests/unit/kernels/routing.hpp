#pragma once

#include "ops/router.hpp"
#include "tests/unit/kernels/kernel_test.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace konclave {

/// Tokens, experts and choices per token: none, one expert, all experts, one past 32 and 64.
struct RoutingCase {
  int tokens, experts, top_k;
};
inline constexpr RoutingCase kRoutingCases[] = {{0, 3, 2},    {1, 1, 1},     {5, 3, 3},
                                                {7, 4, 1},    {33, 8, 2},    {65, 64, 6},
                                                {13, 67, 67}, {129, 128, 8}, {300, 256, 8}};

using Values = std::vector<double>;

/// Places of the largest values in ascending order, equal ones by place.
inline std::vector<int> largest(const Values& values, int count) {
  std::vector<int> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return values[static_cast<std::size_t>(a)] > values[static_cast<std::size_t>(b)];
  });
  order.resize(static_cast<std::size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

/// A way to choose and weigh, and whether there is a bias.
struct RoutingVariant {
  std::string name;
  ops::RouteRule rule;
  bool bias = false;
};
/// All rules; with groups those that the sizes allow.
inline std::vector<RoutingVariant> routing_variants(const RoutingCase& each) {
  using ops::ScoreFunction;
  std::vector<RoutingVariant> variants;
  for (const bool bias : {false, true}) {
    for (const auto& [groups, of_groups] : {std::pair(0, 0), {2, 1}, {4, 2}, {8, 3}}) {
      const bool grouped = groups > 0;
      if (grouped && (each.experts % groups != 0 || of_groups > each.top_k ||
                      each.top_k > of_groups * (each.experts / groups)))
        continue;
      const std::string also =
          (bias ? ", bias" : "") +
          (grouped ? ", " + std::to_string(groups) + " groups" : std::string());
      variants.push_back(
          {"post" + also, {ScoreFunction::softmax, false, groups, of_groups, 3}, bias});
      variants.push_back(
          {"pre" + also, {ScoreFunction::softmax, true, groups, of_groups, 0.5}, bias});
      variants.push_back(
          {"sigmoid" + also, {ScoreFunction::sigmoid, false, groups, of_groups, 2.5}, bias});
    }
  }
  return variants;
}

class RoutingTest : public KernelTest {
 protected:
  /// f(type, case, pre_softmax) for everything there is.
  template <typename F> void for_each_routing(F&& f) {
    for (const DType type : kAccumTypes) {
      for (const RoutingCase& each : kRoutingCases) {
        for (const bool pre_softmax : {false, true}) {
          SCOPED_TRACE(testing::Message()
                       << name_of(type) << ", T = " << each.tokens << ", E = " << each.experts
                       << ", K = " << each.top_k << (pre_softmax ? ", pre" : ", post"));
          tensors_ = Tensors(exec_);
          f(type, each, pre_softmax);
        }
      }
    }
  }

  /// f(type, case, variant) for all rules.
  template <typename F> void for_each_variant(F&& f) {
    for (const DType type : kAccumTypes) {
      for (const RoutingCase& each : kRoutingCases) {
        for (const RoutingVariant& variant : routing_variants(each)) {
          SCOPED_TRACE(testing::Message()
                       << name_of(type) << ", T = " << each.tokens << ", E = " << each.experts
                       << ", K = " << each.top_k << ", " << variant.name);
          tensors_ = Tensors(exec_);
          f(type, each, variant);
        }
      }
    }
  }
  /// As large as the differences of scores, so that it changes choices.
  ops::RouteChoice choice_of(const RoutingVariant& variant, int experts) {
    ops::RouteChoice choice;
    if (variant.bias) choice.bias = bias(experts);
    return choice;
  }
  View1<const float> bias(int experts) {
    std::vector<double> values = random_values("bias", experts);
    for (double& value : values) value *= 0.2;
    const AnyView view = tensors_.poisoned(DType::fp32, experts);
    from_doubles(exec_, values, view);
    return view.as1<float>();
  }

  View2<int> integers2(std::int64_t rows, std::int64_t columns) {
    return View2<int>(integers(rows * columns).data(), static_cast<std::size_t>(rows),
                      static_cast<std::size_t>(columns));
  }
  std::vector<int> flat(const View2<int>& view) const {
    return to_host(exec_, View1<int>(view.data(), view.extent(0) * view.extent(1)));
  }
  ops::Routed make_routed(DType type, const RoutingCase& each) {
    return {tensors_.poisoned(type, each.tokens, each.experts),
            tensors_.poisoned(type, each.tokens), integers2(each.tokens, each.top_k),
            tensors_.poisoned(type, each.tokens, each.top_k)};
  }
  ops::RouteStatistics make_statistics(const std::vector<int>& offsets, std::int64_t experts,
                                       int top_k = 0, bool two_choices = false) {
    const auto count = static_cast<std::int64_t>(offsets.size()) - 1;
    const auto table = [&] { return tensors_.poisoned(DType::fp64, count, experts).as2<double>(); };
    return {tensors_.integers(offsets),
            table(),
            table(),
            table(),
            doubles(count),
            doubles(count),
            doubles(ops::route_scratch(offsets.back(), count, static_cast<int>(experts))),
            two_choices ? integers2(offsets.back(), top_k) : View2<int>()};
  }
  /// One sequence without rows, between two others, has no part in the choice of experts.
  ops::Routed route(const AnyView& logits, int top_k, const ops::RouteRule& rule,
                    const ops::RouteChoice& choice = {}) {
    const auto tokens = static_cast<int>(logits.extent(0));
    const auto experts = static_cast<int>(logits.extent(1));
    const ops::Routed routed = make_routed(logits.type(), {tokens, experts, top_k});
    ops::route(exec_, logits, rule, choice, routed,
               make_statistics(window_offsets(tokens), experts, top_k,
                               ops::chooses_by_more_than_scores(rule, choice)));
    return routed;
  }
  ops::Routed route(const AnyView& logits, int top_k, bool pre_softmax) {
    return route(logits, top_k, {ops::ScoreFunction::softmax, pre_softmax});
  }
  /// Windows of unequal length over T tokens, an empty one among them.
  static std::vector<int> window_offsets(int tokens) { return {0, tokens / 3, tokens / 3, tokens}; }
};

}  // namespace konclave
