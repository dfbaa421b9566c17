// Sinkhorn, capacities, losses and the expert bias of megatron-core's whole router
// (make_megatron_router.py) beside Router and RoutingMemory.

#include "moe/router.hpp"
#include "moe/routing_memory.hpp"
#include "moe/sinkhorn.hpp"
#include "tensor/compare.hpp"
#include "tests/unit/model/workbench.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>

namespace konclave {
namespace {

using nlohmann::json;
using Values = std::vector<double>;

/// The router computes in fp32 there and here.
constexpr double kAbsolute = 2e-6, kOfGradients = 1e-5, kOfLosses = 1e-6;

Values flat(const json& rows) {
  Values all;
  for (const json& row : rows) {
    for (const json& value : row) all.push_back(value);
  }
  return all;
}

MoeConfig config_of(const json& settings, int experts) {
  MoeConfig moe;
  const auto read = [&](const char* key, auto& to) { to = settings.value(key, to); };
  moe.num_experts = experts;
  read("top_k", moe.top_k);
  read("score_function", moe.score_function);
  read("pre_softmax", moe.pre_softmax);
  read("num_groups", moe.num_groups);
  read("group_top_k", moe.group_top_k);
  read("scaling_factor", moe.scaling_factor);
  read("window", moe.window);
  read("balancing", moe.balancing);
  read("aux_loss_coefficients", moe.aux_loss_coefficients);
  read("global_aux_counts", moe.global_aux_counts);
  read("z_loss_coefficient", moe.z_loss_coefficient);
  read("expert_bias", moe.expert_bias);
  read("expert_bias_update_rate", moe.expert_bias_update_rate);
  read("capacity_factor", moe.capacity_factor);
  read("pad_to_capacity", moe.pad_to_capacity);
  read("drop_policy", moe.drop_policy);
  return moe;
}

/// A router with the recorded weight, over sequences of `length` tokens.
class RouterOfFacts : public Workbench {
 public:
  RouterOfFacts(const json& facts, const json& settings)
      : experts(static_cast<int>(facts.at("weight").size())),
        tokens(static_cast<int>(facts.at("x").size())),
        hidden(static_cast<int>(facts.at("weight").at(0).size())),
        config(config_of(settings, experts)),
        step(make_step(facts.at("sequence_length"), tokens)),
        router_("router", hidden, /*init_std=*/1, DType::fp32, config, Groups::alone(), storage()),
        upstream_(flat(facts.at("grad_probs"))) {
    step.training = settings.value("training", true);
    router_.visit_parameters([&](Parameter& parameter) {
      from_doubles(exec, flat(facts.at("weight")), parameter.value());
      gradient_ = parameter.grad();
    });
    router_.prepare(exec, operations);
  }

  /// From now on a window is a micro-batch by itself.
  void take_windows_one_by_one() {
    parts_ = step.windows.count;
    const BalanceScale scale = step.scale;
    step = make_step(static_cast<int>(step.windows.tokens) / config.window, tokens / parts_);
    step.scale = scale;
    step.running = {tensors.poisoned(DType::fp64, parts_, experts).as2<double>(), /*layers=*/1};
  }

  /// Forward and, in training, backward of each micro-batch; what is found is compared with
  /// `expected`.
  void run_and_compare(const json& rows_of_x, const json& expected) {
    const AnyView x = tensors.values(DType::fp32, flat(rows_of_x), tokens, hidden);
    const AnyView dx = tensors.poisoned(DType::fp32, tokens, hidden);
    set(dx, 0);
    set(gradient_, 0);
    set(sums(), 0);
    const std::int64_t rows = tokens / parts_;
    Values map, probs;
    for (int part = 0; part < parts_; ++part) {
      step.running.micro_batch = part;
      run(x.slice(part * rows, rows), part * rows, dx.slice(part * rows, rows), map, probs);
    }
    EXPECT_EQ(map, flat(expected.at("map")));
    EXPECT_LT(difference(probs, flat(expected.at("probs"))).max_absolute, kAbsolute);
    if (!step.training) return;
    EXPECT_LT(difference(to_doubles(exec, dx), flat(expected.at("dx"))).relative_norm,
              kOfGradients);
    EXPECT_LT(difference(to_doubles(exec, gradient_), flat(expected.at("dweight"))).relative_norm,
              kOfGradients);
  }
  AnyView logits_of(const json& facts) {
    const Values x = flat(facts.at("x")), weight = flat(facts.at("weight"));
    const auto h = static_cast<std::size_t>(hidden);
    Values logits;
    for (std::size_t t = 0; t < x.size(); t += h) {
      for (std::size_t e = 0; e < weight.size(); e += h) {
        double sum = 0;
        for (std::size_t i = 0; i < h; ++i) sum += x[t + i] * weight[e + i];
        logits.push_back(sum);
      }
    }
    return tensors.values(DType::fp32, logits, tokens, experts);
  }
  AnyView sums() const {
    return {DType::fp64, step.statistics.sums.data(), {1, MoeStatistics::columns(experts), 1}, 2};
  }
  double loss(MoeStatistics::Term term) const {
    return to_doubles(exec, sums())[static_cast<std::size_t>(term)];
  }
  /// Statistics of each expert, from the column of the first.
  Values of_experts(int first) const {
    const Values all = to_doubles(exec, sums());
    return {all.begin() + first, all.begin() + first + experts};
  }

  const int experts, tokens, hidden;
  const MoeConfig config;
  MoeStep step;

 private:
  /// One micro-batch, whose first token is `first` of all; adds its rows to map and probs.
  void run(const AnyIn& x, std::int64_t first, const AnyView& dx, Values& map, Values& probs) {
    activations.rewind({});
    Router::Saved saved;
    const RoutingPlan plan = router_.forward(context(), x, step, /*layer=*/0, saved);

    const std::vector<int> offsets = to_host(exec, plan.token_offsets);
    const std::vector<int> chosen = to_host(exec, plan.expert_ids);
    const Values of_plan = to_doubles(exec, plan.weights);
    Values dweights;
    for (std::size_t t = 0; t + 1 < offsets.size(); ++t) {
      const std::size_t row = map.size();
      map.resize(row + static_cast<std::size_t>(experts), 0);
      probs.resize(map.size(), 0);
      const std::size_t upstream =
          (static_cast<std::size_t>(first) + t) * static_cast<std::size_t>(experts);
      for (auto a = static_cast<std::size_t>(offsets[t]);
           a < static_cast<std::size_t>(offsets[t + 1]); ++a) {
        const auto expert = static_cast<std::size_t>(chosen[a]);
        map[row + expert] += 1;
        probs[row + expert] = of_plan[a];
        dweights.push_back(upstream_[upstream + expert]);
      }
    }
    if (!step.training) return;
    const AnyView dw = tensors.poisoned(DType::fp32, plan.assignments());
    from_doubles(exec, dweights, dw);
    router_.backward(context(), saved, dw, dx);
  }

  MoeStep make_step(int length, int rows) {
    std::vector<int> windows, sequences;
    for (int row = 0; row <= rows; row += length) {
      sequences.push_back(row);
      if (row % (length * config.window) == 0) windows.push_back(row);
    }
    MoeStep made = moe_step(windows, std::int64_t{length} * config.window, /*layers=*/1, experts);
    made.windows.sequences = static_cast<int>(sequences.size()) - 1;
    made.windows.sequence_offsets = tensors.integers(sequences);
    made.scale.per_sequence = 1.0 / made.windows.sequences;
    return made;
  }

  Router router_;
  int parts_ = 1;  ///< micro-batches of a step
  Values upstream_;
  AnyView gradient_;
};

class MegatronRouter : public testing::Test {
 protected:
  MegatronRouter() {
    std::ifstream file(std::filesystem::path(KONCLAVE_SOURCE_DIR) /
                       "tests/oracle/data/megatron/router.json");
    facts_ = json::parse(file);
  }

  json facts_;
};

TEST_F(MegatronRouter, ChoicesWeightsLossesAndGradients) {
  for (const json& one : facts_.at("cases")) {
    SCOPED_TRACE(one.at("settings").dump());
    RouterOfFacts router(facts_, one.at("settings"));
    router.run_and_compare(facts_.at("x"), one);
    const json& losses = one.at("losses");
    const auto expect_loss = [&](const char* name, MoeStatistics::Term term) {
      EXPECT_NEAR(router.loss(term), losses.value(name, 0.0), kOfLosses) << name;
    };
    expect_loss("aux_loss", MoeStatistics::kAuxLoss);
    expect_loss("seq_aux_loss", MoeStatistics::kSeqAuxLoss);
    expect_loss("z_loss", MoeStatistics::kZLoss);
  }
}

/// Each row by its sum: how often a row is scaled at the end differs, and no choice depends on it.
Values shares(Values plan, int experts) {
  for (auto row = plan.begin(); row != plan.end(); row += experts) {
    const double sum = std::accumulate(row, row + experts, 0.0);
    std::for_each(row, row + experts, [&](double& value) { value /= sum; });
  }
  return plan;
}

TEST_F(MegatronRouter, SinkhornPlan) {
  int plans = 0;
  for (const json& one : facts_.at("cases")) {
    if (!one.contains("plan")) continue;
    ++plans;
    SCOPED_TRACE(one.at("settings").dump());
    RouterOfFacts router(facts_, one.at("settings"));
    const AnyView found = sinkhorn_plan(router.context(), *Groups::alone().tp_cp,
                                        router.step.windows, router.logits_of(facts_));
    EXPECT_LT(difference(shares(to_doubles(router.exec, found), router.experts),
                         shares(flat(one.at("plan")), router.experts))
                  .max_absolute,
              kAbsolute);
  }
  EXPECT_EQ(plans, 4);
}

/// The bias of each step's choices, and the counts that its global loss goes by, are those that the
/// steps before have left.
TEST_F(MegatronRouter, FromStepToStep) {
  for (const json& one : facts_.at("walks")) {
    const json& settings = one.at("settings");
    SCOPED_TRACE(settings.dump());
    RouterOfFacts router(facts_, settings);
    RoutingMemory memory(router.exec, router.weights, /*layers=*/1, router.config);
    router.step.state = memory.state();
    std::size_t number = 0;
    for (const json& expected : one.at("steps")) {
      SCOPED_TRACE("step " + std::to_string(number));
      router.run_and_compare(facts_.at("step_x").at(number++), expected);
      EXPECT_NEAR(router.loss(MoeStatistics::kGlobalAuxLoss), expected.at("global_aux_loss"),
                  kOfLosses);
      const Values chosen = router.of_experts(MoeStatistics::chosen(0));
      const Values counted = router.of_experts(MoeStatistics::counted(router.experts, 0));
      EXPECT_EQ(chosen, expected.at("chosen").get<Values>());
      EXPECT_EQ(counted, expected.at("load").get<Values>());
      memory.update(router.exec, chosen, counted, router.tokens);
      const Values none(static_cast<std::size_t>(router.experts), 0.0);
      EXPECT_LT(
          difference(to_doubles(router.exec, memory.expert_bias()), expected.value("bias", none))
              .max_absolute,
          1e-9);
    }
  }
}

/// Its own global loss, of the counts of a step so far, micro-batch by micro-batch.
TEST_F(MegatronRouter, RunningLoad) {
  ASSERT_EQ(facts_.at("running").size(), 2U);
  for (const json& one : facts_.at("running")) {
    SCOPED_TRACE(one.at("settings").dump());
    RouterOfFacts router(facts_, one.at("settings"));
    router.take_windows_one_by_one();
    std::size_t number = 0;
    for (const json& expected : one.at("steps")) {
      SCOPED_TRACE("step " + std::to_string(number));
      router.run_and_compare(facts_.at("step_x").at(number++), expected);
      const json& losses = expected.at("losses");
      EXPECT_NEAR(router.loss(MoeStatistics::kGlobalAuxLoss), losses.at("global_aux_loss"),
                  kOfLosses);
      EXPECT_NEAR(router.loss(MoeStatistics::kAuxLoss), losses.value("aux_loss", 0.0), kOfLosses);
    }
  }
}

}  // namespace
}  // namespace konclave
