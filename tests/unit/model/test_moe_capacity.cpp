#include "moe/moe_layer.hpp"
#include "tests/unit/model/workbench.hpp"

#include <algorithm>
#include <map>
#include <numeric>

namespace konclave {
namespace {

constexpr int kHidden = 5, kFfn = 3, kExperts = 4, kTopK = 2, kWindow = 10, kTokens = 20;
const int kColumns = MoeStatistics::columns(kExperts);

MoeLayerConfig config(double factor, bool padded = false, const std::string& policy = "probs") {
  MoeConfig moe;
  moe.num_experts = kExperts;
  moe.top_k = kTopK;
  moe.ffn_hidden_size = kFfn;
  moe.pre_softmax = true;
  moe.capacity_factor = factor;
  moe.pad_to_capacity = padded;
  moe.drop_policy = policy;
  return {moe, kHidden, DType::fp64};
}

/// A layer over two windows of ten tokens, with random parameters.
struct Layer : Workbench {
  explicit Layer(const MoeLayerConfig& settings)
      : layer("moe", /*index=*/0, settings, Groups::alone(), storage()) {
    layer.visit_parameters([&](Parameter& parameter) { set(parameter.grad(), 0); });
    randomised_leaves(exec, layer, 0.5);
    layer.prepare(exec, operations);
  }
  std::vector<double> forward() {
    set(sums(), 0);
    const AnyView y = tensors.poisoned(DType::fp64, kTokens, kHidden);
    layer.prepare(exec, operations);
    layer.forward(context(), step, x, /*residual=*/{}, saved, y);
    return to_doubles(exec, y);
  }
  /// dx and the gradients of all parameters, one behind the other.
  std::vector<double> backward() {
    const AnyView dx = tensors.poisoned(DType::fp64, kTokens, kHidden);
    const AnyView dy = tensors.random("dy", DType::fp64, kTokens, kHidden);
    layer.backward(context(), saved, dy, dx);
    std::vector<double> all = to_doubles(exec, dx);
    layer.visit_parameters([&](const Parameter& parameter) {
      const std::vector<double> gradient = to_doubles(exec, parameter.grad());
      all.insert(all.end(), gradient.begin(), gradient.end());
    });
    return all;
  }
  AnyView sums() const { return {DType::fp64, step.statistics.sums.data(), {1, kColumns, 1}, 2}; }
  double statistic(int column) const {
    return to_doubles(exec, sums())[static_cast<std::size_t>(column)];
  }
  double chosen(int expert) const { return statistic(MoeStatistics::chosen(expert)); }
  double kept(int expert) const { return statistic(MoeStatistics::kept(kExperts, expert)); }

  /// (window, expert) -> its assignments: the place in the window and the weight, places ascending.
  using Assignments = std::map<std::pair<int, int>, std::vector<std::pair<int, double>>>;
  Assignments assignments() const {
    const RoutingPlan& plan = saved.routing;
    const std::vector<int> offsets = to_host(exec, plan.token_offsets);
    const std::vector<int> experts = to_host(exec, plan.expert_ids);
    const std::vector<double> of_rows = to_doubles(exec, plan.weights);
    Assignments found;
    for (int t = 0; t < kTokens; ++t) {
      const auto begin = static_cast<std::size_t>(offsets[static_cast<std::size_t>(t)]);
      const auto end = static_cast<std::size_t>(offsets[static_cast<std::size_t>(t) + 1]);
      for (std::size_t a = begin; a < end; ++a) {
        EXPECT_TRUE(a == begin || experts[a - 1] < experts[a]) << "experts of a token ascend";
        found[{t / kWindow, experts[a]}].emplace_back(t % kWindow, of_rows[a]);
      }
    }
    return found;
  }

  MoeLayer layer;
  MoeStep step = moe_step({0, kWindow, kTokens}, kWindow, /*layers=*/1, kExperts);
  MoeLayer::Saved saved;
  AnyView x = tensors.random("x", DType::fp64, kTokens, kHidden);
};

TEST(Capacity, IsTheShareOfAnExpertRoundedUpAndNeverMoreThanAWindow) {
  EXPECT_EQ(expert_capacity(config(1).moe, 10), 5);
  EXPECT_EQ(expert_capacity(config(0.5).moe, 10), 3);
  EXPECT_EQ(expert_capacity(config(1.25).moe, 16), 10);
  EXPECT_EQ(expert_capacity(config(3).moe, 10), 10);
}

/// By the plain rule: of what was chosen without a capacity, the best five, or the first five.
TEST(Capacity, KeepsTheBestOrTheFirst) {
  Layer free(config(0));
  free.forward();
  const Layer::Assignments all = free.assignments();
  for (const char* policy : {"probs", "position"}) {
    SCOPED_TRACE(policy);
    Layer bounded(config(1, false, policy));
    bounded.forward();
    Layer::Assignments kept = bounded.assignments();
    int dropped = 0;
    for (auto [key, expected] : all) {
      if (std::string(policy) == "probs") {
        std::stable_sort(expected.begin(), expected.end(),
                         [](const auto& a, const auto& b) { return a.second > b.second; });
      }
      dropped += std::max(0, static_cast<int>(expected.size()) - 5);
      expected.resize(std::min<std::size_t>(5, expected.size()));
      std::sort(expected.begin(), expected.end());
      EXPECT_EQ(kept[key], expected) << "window " << key.first << ", expert " << key.second;
    }
    EXPECT_GT(dropped, 0);
    double chosen_all = 0, kept_all = 0;
    for (int e = 0; e < kExperts; ++e) {
      EXPECT_EQ(bounded.chosen(e), free.chosen(e));
      EXPECT_EQ(free.kept(e), free.chosen(e));
      chosen_all += bounded.chosen(e);
      kept_all += bounded.kept(e);
    }
    EXPECT_EQ(chosen_all - kept_all, dropped);
  }
}

/// Weights that rounding alone keeps apart are equal: the places decide.
TEST(Capacity, RoundingDoesNotDecide) {
  for (const DType type : {DType::fp64, DType::fp32}) {
    Workbench bench;
    MoeConfig moe = config(1).moe;
    moe.top_k = 1;
    moe.num_experts = 2;
    const double noise = type == DType::fp64 ? 4e-16 : 2e-7;
    std::vector<int> chosen(kWindow, 1);
    std::vector<double> weights;
    for (int t = 0; t < kWindow; ++t) weights.push_back(0.3 * (1 + noise * t));
    weights[8] = 0.301;  // larger by more than that
    const AnyView of_choices = bench.tensors.poisoned(type, kWindow);
    from_doubles(bench.exec, weights, of_choices);
    const View1<const int> ids = bench.tensors.integers(chosen);
    const View2<const int> experts(ids.data(), kWindow, 1);
    const MoeStep step = bench.moe_step({0, kWindow}, kWindow, 1, 2);
    const CapacityPlan plan(bench.context(), moe, *Groups::alone().tp_cp, step.windows, experts,
                            of_choices);
    const std::vector<int> offsets = to_host(bench.exec, plan.routing().token_offsets);
    std::vector<int> kept;
    for (std::size_t t = 0; t < kWindow; ++t) {
      if (offsets[t] != offsets[t + 1]) kept.push_back(static_cast<int>(t));
    }
    EXPECT_EQ(kept, (std::vector<int>{0, 1, 2, 3, 8})) << name_of(type);
  }
}

TEST(Capacity, WhatFitsIsNotTouched) {
  Layer free(config(0)), wide(config(2));
  const std::vector<double> expected = free.forward();
  EXPECT_EQ(wide.forward(), expected);
  EXPECT_EQ(wide.backward(), free.backward());
}

TEST(Capacity, PaddingFillsUpAndChangesNothing) {
  for (const char* policy : {"probs", "position"}) {
    for (const double factor : {0.6, 1.0, 1.7, 5.0}) {
      SCOPED_TRACE(testing::Message() << policy << ", factor " << factor);
      Layer plain(config(factor, false, policy)), padded(config(factor, true, policy));
      EXPECT_TRUE(close(padded.forward(), plain.forward(), tolerance(DType::fp64)));
      const auto capacity = static_cast<std::size_t>(expert_capacity(config(factor).moe, kWindow));
      const Layer::Assignments real = plain.assignments();
      Layer::Assignments all = padded.assignments();
      EXPECT_EQ(all.size(), 2U * kExperts);
      for (auto& [key, found] : all) {
        EXPECT_EQ(found.size(), capacity);
        const auto padding = [](const auto& a) { return a.second == 0; };
        std::vector<int> places;
        for (const auto& [place, weight] : found) {
          if (weight == 0) places.push_back(place);
        }
        found.erase(std::remove_if(found.begin(), found.end(), padding), found.end());
        const auto expected = real.find(key);
        if (expected != real.end()) {
          EXPECT_EQ(found, expected->second);
        }
        // The lowest places that are not taken.
        int next = 0;
        for (const int place : places) {
          while (next < place) {
            EXPECT_TRUE(std::any_of(found.begin(), found.end(),
                                    [&](const auto& a) { return a.first == next; }))
                << "place " << next << " is passed over";
            ++next;
          }
          ++next;
        }
      }
      EXPECT_TRUE(close(padded.backward(), plain.backward(), tolerance(DType::fp64)));
      for (int e = 0; e < kExperts; ++e) EXPECT_EQ(padded.kept(e), plain.kept(e));
    }
  }
}

/// A token all of whose experts are full passes by the residual.
TEST(Capacity, ATokenWithoutExpertsIsItsResidual) {
  MoeLayerConfig settings = config(0.3);
  settings.moe.top_k = 1;
  Layer moe(settings);
  moe.forward();
  const std::vector<int> offsets = to_host(moe.exec, moe.saved.routing.token_offsets);
  const AnyView residual = moe.tensors.random("residual", DType::fp64, kTokens, kHidden);
  const AnyView y = moe.tensors.poisoned(DType::fp64, kTokens, kHidden);
  moe.layer.forward(moe.context(), moe.step, moe.x, residual, moe.saved, y);
  const std::vector<double> found = to_doubles(moe.exec, y),
                            passed = to_doubles(moe.exec, residual);
  int dropped = 0;
  for (std::size_t t = 0; t < kTokens; ++t) {
    const bool is_dropped = offsets[t] == offsets[t + 1];
    dropped += is_dropped ? 1 : 0;
    EXPECT_EQ(std::equal(found.begin() + static_cast<std::ptrdiff_t>(t * kHidden),
                         found.begin() + static_cast<std::ptrdiff_t>((t + 1) * kHidden),
                         passed.begin() + static_cast<std::ptrdiff_t>(t * kHidden)),
              is_dropped);
  }
  EXPECT_GT(dropped, kTokens / 2);
}

TEST(Capacity, EvaluationDropsNothing) {
  Layer free(config(0)), bounded(config(0.5, true));
  bounded.step.training = false;
  EXPECT_EQ(bounded.forward(), free.forward());
}

TEST(Capacity, BackwardIsTheGradient) {
  for (const bool padded : {false, true}) {
    for (const char* policy : {"probs", "position"}) {
      SCOPED_TRACE(testing::Message() << policy << (padded ? ", padded" : ""));
      Layer moe(config(0.8, padded, policy));
      moe.expect_layer_gradients(
          moe.layer, moe.x,
          [&](const AnyIn& in, const AnyView& y) {
            moe.layer.forward(moe.context(), moe.step, in, /*residual=*/{}, moe.saved, y);
          },
          [&](const AnyIn& dy, const AnyView& dx) {
            moe.layer.backward(moe.context(), moe.saved, dy, dx);
          },
          [] { return 0.0; });
    }
  }
}

}  // namespace
}  // namespace konclave
