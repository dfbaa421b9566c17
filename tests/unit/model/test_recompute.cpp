#include "model/recompute.hpp"
#include "tests/unit/model/tiny_model.hpp"
#include "tests/unit/model/workbench.hpp"

#include <map>
#include <memory>

namespace konclave {
namespace {

using Values = std::vector<double>;

RecomputeConfig modules(std::vector<std::string> names) { return {"selective", std::move(names)}; }
RecomputeConfig full(const std::string& method, int layers) { return {"full", {}, method, layers}; }

/// Dense and MoE layers with everything that a router and its experts may have.
ModelDefinition model() {
  ModelDefinition definition = tiny_model();
  definition.model.num_layers = 4;
  MoeConfig& moe = definition.moe;
  moe.layer_frequency = {0, 1, 0, 1};
  moe.shared_ffn_hidden_size = 6;
  moe.shared_gate = true;
  moe.capacity_factor = 1;
  moe.input_jitter = 0.1;
  moe.balancing = {"seq_aux_loss", "global_aux_loss"};
  moe.aux_loss_coefficients = {0.1, 0.2};
  return definition;
}

/// Two steps, the second of which counts.
struct TrainingOf {
  explicit TrainingOf(const RecomputeConfig& config, const ModelDefinition& definition = model(),
                      int micro_size = 120)
      : size(micro_size), runner(tiny_runner(definition, built_backends())) {
    runner->model().recompute(config);
    step();
    const std::int64_t first = runner->memory().peak_total();
    losses = step();
    grows = runner->memory().peak_total() > first;
    activations = runner->memory().peak(MemoryClass::activations);
  }
  Values step() {
    runner->model().visit_parameters([&](Parameter& parameter) {
      from_doubles(runner->exec(), Values(static_cast<std::size_t>(parameter.size()), 0),
                   parameter.grad());
    });
    const MoeStep moe = runner->moe_step(/*training=*/true, {1.0 / 240, 1.0 / 1200, 1.0 / 240});
    const Values found = runner->train(tiny_batches(240, size), {0.1, moe});
    statistics = to_host(runner->exec(),
                         View1<double>(moe.statistics.sums.data(), moe.statistics.sums.size()));
    return found;
  }
  std::map<std::string, Values> gradients() {
    std::map<std::string, Values> found;
    runner->model().visit_parameters([&](const Parameter& parameter) {
      found[parameter.name()] = to_doubles(runner->exec(), parameter.grad());
    });
    return found;
  }

  int size;
  std::unique_ptr<ModelRunner> runner;
  Values losses, statistics;
  std::int64_t activations = 0;
  bool grows = false;
};

TEST(Recompute, ChangesNoBit) {
  TrainingOf plain({});
  EXPECT_GT(plain.statistics[MoeStatistics::kSeqAuxLoss], 0);
  const auto expected = plain.gradients();
  const auto check = [&](const RecomputeConfig& config, const std::string& what, double most) {
    SCOPED_TRACE(what);
    TrainingOf again(config);
    EXPECT_EQ(again.losses, plain.losses);
    EXPECT_EQ(again.statistics, plain.statistics) << "counted once";
    for (const auto& [name, gradient] : again.gradients()) {
      EXPECT_EQ(gradient, expected.at(name)) << name;
    }
    EXPECT_FALSE(again.grows) << "the second step wants more memory";
    EXPECT_LT(static_cast<double>(again.activations),
              most * static_cast<double>(plain.activations));
  };
  check(modules({"core_attn"}), "core_attn", 0.97);
  check(modules({"mlp"}), "mlp", 0.97);
  check(modules({"moe"}), "moe", 0.96);
  check(modules({"shared_experts"}), "shared_experts", 0.97);
  check(modules({"layernorm"}), "layernorm", 0.97);
  check(modules({"layernorm", "core_attn"}), "layernorm and core_attn", 0.95);
  check(modules({"layernorm", "mlp", "moe"}), "layernorm, mlp and moe", 0.9);
  check(modules({"layernorm", "shared_experts"}), "layernorm and shared_experts", 0.95);
  check(modules({"moe_act"}), "moe_act", 1.01);
  check(modules({"core_attn", "mlp", "moe", "shared_experts"}), "all modules", 0.8);
  check(full("uniform", 1), "uniform 1", 0.6);
  check(full("uniform", 3), "uniform 3", 0.9);
  check(full("block", 2), "block 2", 0.9);
}

/// What is done again goes by the load of its micro-batch, with others behind it or not.
TEST(Recompute, FindsTheRunningLoad) {
  ModelDefinition running = model();
  running.moe.global_aux_counts = "running";
  TrainingOf plain({}, running, /*micro_size=*/60), previous({}, model(), 60);
  EXPECT_NE(plain.statistics[MoeStatistics::kGlobalAuxLoss],
            previous.statistics[MoeStatistics::kGlobalAuxLoss]);
  const auto expected = plain.gradients();
  for (const RecomputeConfig& config : {modules({"moe"}), full("uniform", 3), full("block", 2)}) {
    SCOPED_TRACE(config.granularity + " " + config.method);
    TrainingOf again(config, running, 60);
    EXPECT_EQ(again.losses, plain.losses);
    EXPECT_EQ(again.statistics, plain.statistics);
    EXPECT_EQ(again.gradients(), expected);
    EXPECT_FALSE(again.grows);
  }
}

/// Of a layer's activations, two times (T,H) and nothing else.
TEST(Recompute, OutputsOfNormsAreNotKept) {
  constexpr int kTokens = 16, kHidden = 8;
  for (const DType type : {DType::bf16, DType::fp32, DType::fp64}) {
    for (const int layer : {0, 1}) {
      SCOPED_TRACE(testing::Message() << name_of(type) << ", layer " << layer);
      const auto kept_with = [&](const RecomputeConfig& config) {
        Workbench bench;
        Block block(tiny_model(type), Groups::alone(), layer, /*moe_index=*/0, bench.storage());
        randomised_leaves(bench.exec, block, 0.5);
        block.prepare(bench.exec, bench.operations);
        block.recompute(config);
        const Rotary rotary(bench.exec, rotary_frequencies(4, 50, {}), 16, type, bench.weights);
        const AnyView x = bench.tensors.random("x", type, kTokens, kHidden);
        Block::Saved saved;
        block.forward(bench.context(), rotary, bench.sequences({9, 7}),
                      bench.moe_step({0, kTokens}, kTokens, /*layers=*/1, /*experts=*/4), x, saved);
        return bench.activations.mark().total;
      };
      const std::size_t outputs = 2 * kTokens * kHidden * size_of(type);
      EXPECT_EQ(kept_with(modules({"layernorm"})) + outputs, kept_with({}));
      EXPECT_EQ(kept_with(modules({"layernorm", "core_attn", "mlp", "moe"})) + outputs,
                kept_with(modules({"core_attn", "mlp", "moe"})));
    }
  }
}

/// A micro-batch in flight holds inputs of layers, and the memory of layers that are done again is
/// another.
TEST(Recompute, LayersDoneAgainHaveMemoryOfTheirOwn) {
  const std::unique_ptr<ModelRunner> runner = tiny_runner(model(), built_backends());
  runner->model().recompute(full("uniform", 1));
  const auto held = [&](bool aside) {
    MemoryAccount account, others;
    Arena kept(account, MemoryClass::activations, "kept");
    Arena again(others, MemoryClass::activations, "again");
    Arena scratch(others, MemoryClass::buffers, "scratch");
    const Context context{runner->exec(), runner->operations(), kept, scratch};
    const MicroBatch batch =
        make_micro_batch(runner->exec(), kept, tiny_batches(60, 60).front(),
                         runner->model().batch_form(kLength, /*window=*/1), Groups::alone());
    MoeStep step = runner->moe_step(/*training=*/true);
    step.windows = batch.windows;
    ModelChunk::Saved saved;
    runner->model().forward(context, 0, batch, step, {}, saved, {aside ? &again : nullptr});
    EXPECT_EQ(others.current(MemoryClass::activations) > 0, aside);
    return account.peak(MemoryClass::activations);
  };
  EXPECT_EQ(held(true), 1 << 18) << "one block";
  EXPECT_GT(held(false), 1 << 18);
}

TEST(Recompute, GroupsHaveAllLayersInOrder) {
  struct Case {
    RecomputeConfig config;
    std::vector<std::pair<int, bool>> ends;  ///< of each group, and whether it is done again
  };
  for (const Case& expected :
       {Case{{}, {{1, false}, {2, false}, {3, false}}},
        Case{modules({"moe"}), {{1, false}, {2, false}, {3, false}}},
        Case{full("uniform", 1), {{1, true}, {2, true}, {3, true}}},
        Case{full("uniform", 2), {{2, true}, {3, true}}}, Case{full("uniform", 5), {{3, true}}},
        Case{full("block", 2), {{1, true}, {2, true}, {3, false}}}}) {
    int first = 0;
    std::size_t i = 0;
    for (const LayerGroup& group : layer_groups(expected.config, 3)) {
      ASSERT_LT(i, expected.ends.size());
      EXPECT_EQ(group.first, first);
      EXPECT_EQ(group.last, expected.ends[i].first);
      EXPECT_EQ(group.again, expected.ends[i].second);
      first = group.last;
      ++i;
    }
    EXPECT_EQ(first, 3);
  }
}

}  // namespace
}  // namespace konclave
