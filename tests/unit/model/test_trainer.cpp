#include "tests/unit/model/tiny_model.hpp"
#include "tests/unit/model/workbench.hpp"

#include <cmath>
#include <limits>

namespace konclave {
namespace {

OptimizerConfig settings() {
  OptimizerConfig config;
  config.lr = 0.01;
  config.schedule = "constant";
  return config;
}

/// A model and its trainer.
struct Training {
  explicit Training(const ModelDefinition& definition, const OptimizerConfig& config = settings())
      : runner(tiny_runner(definition, built_backends())), trainer(*runner, config, 100) {}

  /// Global batch number `number` of 4 sequences.
  StepMetrics step(int number, int micro_size) {
    return trainer.step(number, tiny_batches(4, micro_size, number));
  }
  std::vector<double> weights() {
    std::vector<double> all;
    runner->model().visit_parameters([&](const Parameter& parameter) {
      const std::vector<double> values = to_doubles(runner->exec(), parameter.value());
      all.insert(all.end(), values.begin(), values.end());
    });
    return all;
  }
  /// Replaces one element of a parameter.
  void set(const std::string& name, std::size_t place, double value) {
    trainer.optimizer().restore_values(runner->exec());
    runner->model().visit_parameters([&](const Parameter& parameter) {
      if (parameter.name() != name) return;
      std::vector<double> values = to_doubles(runner->exec(), parameter.value());
      values[place] = value;
      from_doubles(runner->exec(), values, parameter.value());
    });
    runner->weights_changed();
  }
  /// Weights, masters and moments bit by bit, NaNs included.
  std::vector<char> state() {
    std::vector<char> bytes;
    for (const Optimizer::State& each : trainer.optimizer().states()) {
      const Parameter& parameter = *each.piece.parameter;
      const AnyIn values = parameter.keeps_values() ? AnyIn(parameter.value())
                                                    : parameter.prepared(GemmKind::forward).packed;
      for (const AnyIn& view :
           {values, AnyIn(each.master), AnyIn(each.first_moment), AnyIn(each.second_moment)}) {
        const std::size_t start = bytes.size();
        bytes.resize(start + view.bytes());
        copy_to_host(runner->exec(), view, bytes.data() + start);
      }
    }
    return bytes;
  }

  std::unique_ptr<ModelRunner> runner;
  Trainer trainer;
};

TEST(Trainer, CuttingTheBatchDifferentlyChangesNothing) {
  Training whole(tiny_model());
  const StepMetrics expected[] = {whole.step(1, 4), whole.step(2, 4)};
  EXPECT_EQ(expected[0].tokens, 4 * kLength);
  EXPECT_GT(std::abs(expected[0].loss - expected[1].loss), 1e-3);
  EXPECT_GT(expected[0].aux_loss, 0.05);
  EXPECT_GT(expected[0].z_loss, 0);
  EXPECT_GT(expected[0].load_imbalance, 1);
  for (const int micro_size : {1, 2}) {
    Training cut(tiny_model());
    for (const int number : {1, 2}) {
      SCOPED_TRACE(testing::Message() << "micro size " << micro_size << ", step " << number);
      const StepMetrics metrics = cut.step(number, micro_size), &same = expected[number - 1];
      EXPECT_NEAR(metrics.loss, same.loss, 1e-12);
      EXPECT_NEAR(metrics.grad_norm, same.grad_norm, 1e-12);
      EXPECT_NEAR(metrics.aux_loss, same.aux_loss, 1e-12);
      EXPECT_NEAR(metrics.z_loss, same.z_loss, 1e-12);
      EXPECT_EQ(metrics.load_imbalance, same.load_imbalance);
      EXPECT_EQ(metrics.tokens, same.tokens);
    }
    EXPECT_TRUE(close(cut.weights(), whole.weights(), {1e-12, 1e-12}));
  }
}

TEST(Trainer, ANaNWeightStopsTheUpdate) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  for (const DType type : {DType::bf16, DType::fp32, DType::fp64}) {
    for (const char* name :
         {"model.norm.weight", "model.layers.1.moe.router.weight",
          "model.layers.1.moe.experts.up_proj.weight", "model.layers.0.self_attn.q_proj.bias"}) {
      SCOPED_TRACE(std::string(name_of(type)) + ", " + name);
      Training training(tiny_model(type));
      EXPECT_TRUE(training.step(1, 2).finite);
      training.set(name, 1, kNaN);
      const std::vector<char> before = training.state();
      EXPECT_FALSE(training.step(2, 2).finite);
      EXPECT_EQ(training.state(), before);
    }
  }
}

/// A loss of 1e160 is a number, but the square of its gradient is none.
TEST(Trainer, AGradientThatOverflowsStopsTheUpdate) {
  Training training(tiny_model());
  training.set("model.norm.weight", 3, 1e160);
  const std::vector<char> before = training.state();
  const StepMetrics metrics = training.step(1, 2);
  EXPECT_TRUE(std::isfinite(metrics.loss));
  EXPECT_FALSE(metrics.finite);
  EXPECT_EQ(training.state(), before);
}

/// Two layers of three experts: the busiest one has 3 of 6 and 5 of 5 assignments, of which 2 and 1
/// are dropped.
TEST(StepMetrics, MoeFiguresAreMeansOverLayers) {
  Workbench bench;
  const AnyView sums =
      bench.tensors.values(DType::fp64, {0.2, 0.25, 0.05, 0.1, 0.7, 1, 3, 2, 1, 1, 2, 2, 2, 2,
                                         1.5, 0,    0,    0.2, 0.8, 0, 0, 5, 0, 0, 4, 0, 1, 4},
                           2, MoeStatistics::columns(3));
  StepMetrics metrics;
  read_statistics(bench.exec, {sums.as2<double>()}, Groups::alone(), metrics);
  EXPECT_DOUBLE_EQ(metrics.aux_loss, 1);
  EXPECT_DOUBLE_EQ(metrics.z_loss, 0.15);
  EXPECT_DOUBLE_EQ(metrics.load_imbalance, (1.5 + 3) / 2);
  EXPECT_DOUBLE_EQ(metrics.dropped_fraction, 3.0 / 11);
  ASSERT_EQ(metrics.layers.size(), 2U);
  const LayerMetrics& layer = metrics.layers.front();
  EXPECT_EQ((std::vector{layer.aux_loss, layer.seq_aux_loss, layer.global_aux_loss, layer.z_loss,
                         layer.entropy}),
            (std::vector{0.2, 0.25, 0.05, 0.1, 0.7}));
  EXPECT_EQ(layer.chosen, (std::vector<double>{1, 3, 2}));
  EXPECT_EQ(layer.kept, (std::vector<double>{1, 1, 2}));
  EXPECT_EQ(layer.counted, (std::vector<double>{2, 2, 2}));
  EXPECT_DOUBLE_EQ(layer.dropped_fraction(), 2.0 / 6);
  StepMetrics dense;
  read_statistics(bench.exec, {}, Groups::alone(), dense);
  EXPECT_EQ(dense.load_imbalance, 1);
}

TEST(Trainer, ABatchWithoutScoredTokensIsRefused) {
  Training training(tiny_model());
  std::vector<HostMicroBatch> batches = tiny_batches(2, 1);
  for (HostMicroBatch& batch : batches) batch.labels.assign(batch.labels.size(), -1);
  EXPECT_THROW(training.trainer.step(1, batches), Error);
}

TEST(Trainer, LearnsToRepeatABatch) {
  for (const DType type : {DType::bf16, DType::fp32, DType::fp64}) {
    Training training(tiny_model(type));
    const double first = training.step(1, 2).loss;
    double last = first;
    for (int step = 2; step <= 25; ++step) {
      last = training.trainer.step(step, tiny_batches(4, 2, 1)).loss;
    }
    EXPECT_GT(first, 1.5) << name_of(type);
    EXPECT_LT(last, 0.5 * first) << name_of(type);
  }
}

TEST(Trainer, LearningRateFollowsTheSchedule) {
  OptimizerConfig config = settings();
  config.schedule = "linear";
  config.warmup_steps = 10;
  Training training(tiny_model(), config);
  EXPECT_NEAR(training.trainer.learning_rate(5), 0.005, 1e-16);
  EXPECT_NEAR(training.trainer.learning_rate(55), 0.005, 1e-16);
  const std::vector<double> before = training.weights();
  EXPECT_TRUE(training.step(100, 4).finite);
  EXPECT_EQ(training.weights(), before) << "the last step of a schedule that ends at 0";
}

}  // namespace
}  // namespace konclave
