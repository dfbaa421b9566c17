#pragma once

#include "parallel/shard.hpp"
#include "tests/mpi/all_ranks.hpp"
#include "tests/unit/model/tiny_model.hpp"
#include "tests/unit/model/workbench.hpp"

#include <map>

namespace konclave {

inline OptimizerConfig tiny_settings() {
  OptimizerConfig config;
  config.lr = 0.01;
  config.schedule = "constant";
  return config;
}

/// A global batch of `sequences`, in micro-batches of `micro_size`.
struct BatchForm {
  int sequences = 1, micro_size = 1;
};

/// So small that nearly every matrix has buckets of its own, and experts several.
inline ParallelConfig with_small_buckets(ParallelConfig parallel) {
  parallel.bucket_size = 600;
  return parallel;
}

/// A part of a model that is trained on this rank.
struct Training {
  Training(const Groups& groups, const ModelDefinition& definition, const BatchForm& form,
           const ParallelConfig& parallel = {})
      : batch(form),
        length(definition.model.sequence_length),
        runner(tiny_runner(definition, built_backends(), groups)),
        trainer(*runner, tiny_settings(), 100, with_small_buckets(parallel)) {}

  /// Global batch number `number`, of which this rank takes a block of micro-batches.
  StepMetrics step(int number) {
    const std::vector<HostMicroBatch> all =
        tiny_batches(batch.sequences, batch.micro_size, number, length);
    const Transport& dp = *runner->groups().dp;
    const std::ptrdiff_t share = std::ssize(all) / dp.size();
    const auto first = all.begin() + dp.rank() * share;
    return trainer.step(number, {first, first + share});
  }
  std::vector<StepMetrics> steps(int count) {
    std::vector<StepMetrics> all;
    for (int number = 1; number <= count; ++number) all.push_back(step(number));
    return all;
  }

  BatchForm batch;
  int length;
  std::unique_ptr<ModelRunner> runner;
  Trainer trainer;
};

/// By the names of parameters.
using Weights = std::map<std::string, std::vector<double>>;

inline Weights weights_of(Training& training) {
  training.trainer.optimizer().restore_values(training.runner->exec());
  Weights all;
  training.runner->model().visit_parameters([&](const Parameter& parameter) {
    all[parameter.name()] = to_doubles(training.runner->exec(), parameter.value());
  });
  return all;
}

/// What a rank holds of values of the whole model.
inline std::vector<double> part_of(const std::vector<double>& whole, const Parameter& parameter) {
  std::vector<double> part;
  for (const ShardRun& run : shard_runs(parameter.spec().shape, parameter.shard())) {
    const auto first = whole.begin() + run.in_whole;
    part.insert(part.end(), first, first + run.count);
  }
  return part;
}

inline void expect_near(const std::vector<StepMetrics>& actual,
                        const std::vector<StepMetrics>& expected, double bound) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "step " << i + 1);
    EXPECT_NEAR(actual[i].loss, expected[i].loss, bound);
    EXPECT_NEAR(actual[i].grad_norm, expected[i].grad_norm, bound);
    EXPECT_NEAR(actual[i].aux_loss, expected[i].aux_loss, bound);
    EXPECT_NEAR(actual[i].z_loss, expected[i].z_loss, bound);
    EXPECT_NEAR(actual[i].load_imbalance, expected[i].load_imbalance, bound);
    EXPECT_EQ(actual[i].tokens, expected[i].tokens);
    EXPECT_TRUE(actual[i].finite);
  }
}

/// What the training of a whole model on one rank comes to.
struct Outcome {
  explicit Outcome(Training&& whole, int count)
      : steps(whole.steps(count)), weights(weights_of(whole)) {}

  std::vector<StepMetrics> steps;
  Weights weights;
};

/// Metrics and weights of a training over all ranks against those of one rank.
inline void expect_same(Training& split, const Outcome& expected) {
  expect_near(split.steps(static_cast<int>(expected.steps.size())), expected.steps, 1e-9);
  const Weights mine = weights_of(split);
  split.runner->model().visit_parameters([&](const Parameter& parameter) {
    const std::string& name = parameter.name();
    const std::vector<double> part = part_of(expected.weights.at(name), parameter);
    EXPECT_TRUE(close(mine.at(name), part, {1e-9, 1e-9})) << name;
  });
}

/// A model whose sizes many mappings can share: on 2, 3, 4 or 8 ranks each axis can have all of
/// them, apart from heads, which 3 ranks cannot share, and pieces of a sequence for cp = 8.
inline ModelDefinition divisible_model() {
  ModelDefinition definition = tiny_model();
  ModelConfig& model = definition.model;
  model.sequence_length = 24;
  model.num_layers = 8;
  model.num_heads = 8;
  model.num_kv_heads = 4;
  model.head_dim = 2;
  model.ffn_hidden_size = 16;
  model.tie_embeddings = true;
  MoeConfig& moe = definition.moe;
  moe.num_experts = 24;
  moe.top_k = 3;
  moe.ffn_hidden_size = 24;
  moe.layer_frequency = {0, 1, 1, 0, 1, 0, 0, 1};
  return definition;
}

}  // namespace konclave
