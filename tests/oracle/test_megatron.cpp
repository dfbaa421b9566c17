// Router, auxiliary loss, z-loss and permutation of megatron-core (make_megatron.py).

#include "ops/permute.hpp"
#include "ops/router.hpp"
#include "ops/switch_loss.hpp"
#include "tensor/arena.hpp"
#include "tensor/compare.hpp"
#include "tests/support/tensors.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>

namespace konclave {
namespace {

using Matrix = std::vector<std::vector<double>>;

/// The router computes in fp32 there and here.
constexpr double kTolerance = 2e-6;

std::vector<double> flat(const Matrix& rows) {
  std::vector<double> all;
  for (const auto& row : rows) all.insert(all.end(), row.begin(), row.end());
  return all;
}

class Megatron : public testing::Test {
 protected:
  Megatron() {
    std::ifstream file(std::filesystem::path(KONCLAVE_SOURCE_DIR) /
                       "tests/oracle/data/megatron/routing.json");
    facts_ = nlohmann::json::parse(file);
    tokens_ = facts_.at("num_tokens");
    experts_ = facts_.at("num_experts");
    logits_ = memory_.values(DType::fp32, flat(facts_.at("logits")), tokens_, experts_);
  }

  ops::Routed route(int top_k, bool pre_softmax) {
    return route(top_k, pre_softmax, make_statistics(starts(1)));
  }
  ops::Routed route(int top_k, bool pre_softmax, const ops::RouteStatistics& statistics) {
    const View2<int> chosen(arena_.make1<int>(tokens_ * top_k).data(),
                            static_cast<std::size_t>(tokens_), static_cast<std::size_t>(top_k));
    ops::Routed routed{memory_.poisoned(DType::fp32, tokens_, experts_),
                       memory_.poisoned(DType::fp32, tokens_), chosen,
                       memory_.poisoned(DType::fp32, tokens_, top_k)};
    ops::route(exec_, logits_, {ops::ScoreFunction::softmax, pre_softmax}, {}, routed, statistics);
    return routed;
  }
  ops::RouteStatistics make_statistics(const std::vector<int>& offsets) {
    const auto count = static_cast<std::int64_t>(offsets.size()) - 1;
    const auto table = [&] { return memory_.poisoned(DType::fp64, count, experts_).as2<double>(); };
    return {memory_.integers(offsets),
            table(),
            table(),
            table(),
            arena_.make1<double>(count),
            arena_.make1<double>(count),
            arena_.make1<double>(ops::route_scratch(tokens_, count, experts_)),
            {}};
  }
  /// Gradient of the logits for one window layout.
  std::vector<double> gradient(const ops::Routed& routed, const AnyIn& dweights,
                               const View1<const int>& offsets, const AnyIn& slope, double z_scale,
                               bool pre_softmax) {
    const AnyView dl = memory_.poisoned(DType::fp32, tokens_, experts_);
    ops::route_backward(exec_,
                        {routed.scores,
                         routed.lse,
                         routed.weights,
                         dweights,
                         routed.experts,
                         offsets,
                         slope,
                         z_scale,
                         {ops::ScoreFunction::softmax, pre_softmax}},
                        dl);
    return to_doubles(exec_, dl);
  }
  AnyView zeros(std::int64_t rows, std::int64_t columns) {
    return memory_.values(DType::fp32,
                          std::vector<double>(static_cast<std::size_t>(rows * columns), 0.0), rows,
                          columns);
  }
  std::vector<int> chosen_of(const ops::Routed& routed) {
    return to_host(exec_, View1<int>(routed.experts.data(), routed.experts.size()));
  }
  /// Row starts of equal windows.
  std::vector<int> starts(int windows) const {
    std::vector<int> offsets;
    for (int w = 0; w <= windows; ++w) offsets.push_back(w * tokens_ / windows);
    return offsets;
  }

  ExecSpace exec_;
  Tensors memory_{exec_};
  MemoryAccount account_;
  Arena arena_{account_, MemoryClass::buffers, "test"};
  nlohmann::json facts_;
  int tokens_ = 0, experts_ = 0;
  AnyView logits_;
};

TEST_F(Megatron, TopKWeightsAndGradients) {
  const Matrix upstream = facts_.at("grad_probs");
  for (const nlohmann::json& one : facts_.at("topk")) {
    const int top_k = one.at("top_k");
    const bool pre_softmax = one.at("pre_softmax");
    SCOPED_TRACE("top_k " + std::to_string(top_k) + (pre_softmax ? " pre" : " post"));
    const ops::Routed routed = route(top_k, pre_softmax);

    const std::vector<int> chosen = chosen_of(routed);
    const std::vector<double> weights = to_doubles(exec_, routed.weights);
    Matrix dense(static_cast<std::size_t>(tokens_),
                 std::vector<double>(static_cast<std::size_t>(experts_), 0.0));
    Matrix map = dense;
    std::vector<double> dweights;
    for (std::size_t a = 0; a < chosen.size(); ++a) {
      const std::size_t t = a / static_cast<std::size_t>(top_k);
      const auto e = static_cast<std::size_t>(chosen[a]);
      dense[t][e] = weights[a];
      map[t][e] = 1;
      dweights.push_back(upstream[t][e]);
    }
    EXPECT_LT(difference(flat(dense), flat(one.at("probs"))).max_absolute, kTolerance);
    EXPECT_EQ(flat(map), flat(one.at("map").get<Matrix>()));
    const auto dl = gradient(routed, memory_.values(DType::fp32, dweights, tokens_, top_k),
                             memory_.integers(starts(1)), zeros(1, experts_), 0, pre_softmax);
    EXPECT_LT(difference(dl, flat(one.at("grad_logits"))).max_absolute, kTolerance);
  }
}

TEST_F(Megatron, AuxiliaryLossAndItsGradient) {
  for (const nlohmann::json& one : facts_.at("aux_loss")) {
    const int top_k = one.at("top_k"), windows = one.at("windows");
    SCOPED_TRACE("top_k " + std::to_string(top_k) + ", windows " + std::to_string(windows));
    const ops::RouteStatistics found = make_statistics(starts(windows));
    const ops::Routed routed = route(top_k, /*pre_softmax=*/false, found);
    const auto& offsets = found.offsets;
    const AnyView slope = memory_.poisoned(DType::fp32, windows, experts_);
    const auto losses = arena_.make1<double>(windows);

    ops::switch_loss(exec_, tokens_ / windows, found.counts, found.sums, top_k,
                     one.at("coefficient"), 1.0 / windows, losses, slope);

    EXPECT_EQ(to_host(exec_, View1<double>(found.counts.data(), found.counts.size())),
              flat(one.at("tokens_per_expert").get<Matrix>()));
    const std::vector<double> expected = one.at("window_losses");
    EXPECT_LT(difference(to_host(exec_, losses), expected).max_absolute, 1e-7);
    const auto dl = gradient(routed, zeros(tokens_, top_k), offsets, slope, 0, false);
    EXPECT_LT(difference(dl, flat(one.at("grad_logits"))).relative_norm, 1e-5);
  }
}

TEST_F(Megatron, ZLossAndItsGradient) {
  for (const nlohmann::json& one : facts_.at("z_loss")) {
    const double coefficient = one.at("coefficient");
    const ops::Routed routed = route(/*top_k=*/1, /*pre_softmax=*/false);
    double loss = 0;
    for (const double lse : to_doubles(exec_, routed.lse))
      loss += coefficient * lse * lse / tokens_;
    EXPECT_NEAR(loss / one.at("loss").get<double>(), 1, 1e-6);
    const auto dl = gradient(routed, zeros(tokens_, 1), memory_.integers(starts(1)),
                             zeros(1, experts_), coefficient / tokens_, false);
    EXPECT_LT(difference(dl, flat(one.at("grad_logits"))).relative_norm, 1e-5);
  }
}

TEST_F(Megatron, PermutationAndItsInverse) {
  for (const nlohmann::json& one : facts_.at("permute")) {
    const int top_k = one.at("top_k"), assignments = tokens_ * top_k;
    SCOPED_TRACE("top_k " + std::to_string(top_k));
    const ops::Routed routed = route(top_k, /*pre_softmax=*/true);
    std::vector<int> token_offsets;
    for (int t = 0; t <= tokens_; ++t) token_offsets.push_back(t * top_k);
    const auto ints = [&](std::int64_t size) { return arena_.make1<int>(size); };
    const ops::Permutation rows{ints(experts_ + 1), ints(assignments), ints(assignments)};
    const auto offsets = memory_.integers(token_offsets);

    ops::permutation(exec_, View1<int>(routed.experts.data(), routed.experts.size()), offsets,
                     ints(ops::permutation_scratch(tokens_, experts_)), rows);

    std::vector<int> tokens = to_host(exec_, rows.assignment_of);
    for (int& token : tokens) token /= top_k;
    EXPECT_EQ(tokens, one.at("sorted_indices").get<std::vector<int>>());
    const AnyView permuted_weights = memory_.poisoned(DType::fp32, assignments);
    const AnyIn weights(DType::fp32, routed.weights.data(), {assignments, 1, 1}, 1);
    ops::gather_values(exec_, weights, rows.assignment_of, permuted_weights);
    EXPECT_LT(
        difference(to_doubles(exec_, permuted_weights), one.at("permuted_probs")).max_absolute,
        kTolerance);

    const Matrix expert_out = one.at("expert_out");
    const auto hidden = static_cast<std::int64_t>(expert_out[0].size());
    const AnyView out = memory_.values(DType::fp32, flat(expert_out), assignments, hidden);
    const AnyView back = memory_.poisoned(DType::fp32, tokens_, hidden);
    ops::combine_rows(exec_, out, offsets, View1<const int>(rows.row_of), {}, back);
    EXPECT_LT(difference(to_doubles(exec_, back), flat(one.at("unpermuted"))).max_absolute,
              kTolerance);
  }
}

}  // namespace
}  // namespace konclave
