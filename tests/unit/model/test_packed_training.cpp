// Training with weights that products want packed, beside the same training with weights as they
// are stored: the bits must be the same, and no values be kept that nobody reads.

#include "tests/unit/model/packing_backend.hpp"
#include "tests/unit/model/tiny_model.hpp"
#include "tests/unit/model/workbench.hpp"

#include <limits>
#include <string>

namespace konclave {
namespace {

/// A vocabulary of several strips on each of a few threads, the last one short.
ModelDefinition model(bool tied, DType type = DType::bf16) {
  ModelDefinition definition = tiny_model(type);
  definition.model.vocab_size = 20003;
  definition.model.tie_embeddings = tied;
  return definition;
}

struct Training {
  Training(const ModelDefinition& definition, const OpTable& table)
      : runner(tiny_runner(definition, table)), trainer(*runner, {}, 100) {}

  std::vector<double> bits() {
    std::vector<double> all;
    trainer.optimizer().restore_values(runner->exec());
    for (const Optimizer::State& state : trainer.optimizer().states()) {
      for (const AnyView& view : {state.piece.parameter->value(), state.master, state.first_moment,
                                  state.second_moment}) {
        const std::vector<double> values = to_doubles(runner->exec(), view);
        all.insert(all.end(), values.begin(), values.end());
      }
    }
    return all;
  }

  std::unique_ptr<ModelRunner> runner;
  Trainer trainer;
};

TEST(PackedTraining, HasTheBitsOfTrainingOnStoredWeights) {
  for (const bool tied : {false, true}) {
    SCOPED_TRACE(tied ? "tied" : "not tied");
    Training stored(model(tied), packing_backend::reference());
    Training packed(model(tied), packing_backend::table());
    EXPECT_EQ(packed.bits(), stored.bits()) << "at the start";
    for (int step = 1; step <= 3; ++step) {
      const StepMetrics expected = stored.trainer.step(step, tiny_batches(4, 2, step));
      const StepMetrics metrics = packed.trainer.step(step, tiny_batches(4, 2, step));
      EXPECT_EQ(metrics.loss, expected.loss) << "step " << step;
      EXPECT_EQ(metrics.grad_norm, expected.grad_norm) << "step " << step;
      // Asking for values in between changes nothing.
      if (step == 2) {
        EXPECT_EQ(packed.bits(), stored.bits());
      }
    }
    EXPECT_EQ(packed.bits(), stored.bits());
  }
}

TEST(PackedTraining, KeepsOnlyValuesThatAreReadAsTheyAre) {
  for (const bool tied : {false, true}) {
    Training training(model(tied), packing_backend::table());
    training.trainer.step(1, tiny_batches(4, 2));
    training.runner->model().visit_parameters([&](const Parameter& parameter) {
      const bool read = parameter.spec().shape.size() == 1 ||
                        parameter.spec().type != DType::bf16 ||
                        parameter.name() == "model.embed_tokens.weight";
      EXPECT_EQ(parameter.keeps_values(), read) << parameter.name();
      EXPECT_EQ(parameter.has_value(), read) << parameter.name();
    });
    for (const DType type : {DType::fp32, DType::fp64}) {
      Training wide(model(tied, type), packing_backend::table());
      wide.runner->model().visit_parameters(
          [](const Parameter& parameter) { EXPECT_TRUE(parameter.keeps_values()); });
    }
  }
}

/// A form for each kind of product, 2 bytes an element each, and nothing else.
TEST(PackedTraining, HasTwoCopiesOfAWeight) {
  constexpr std::int64_t kOut = 1024, kIn = 512;
  for (const bool trained : {true, false}) {
    Workbench bench;
    Operations operations(packing_backend::table(), {}, bench.account);
    Parameter weight({.name = "some.weight",
                      .shape = {kOut, kIn},
                      .type = DType::bf16,
                      .init_std = 0.02,
                      .only_multiplied = true},
                     {&bench.weights, trained ? &bench.gradients : nullptr});
    weight.initialise(bench.exec, 1);
    weight.prepare(bench.exec, operations, 0);
    EXPECT_EQ(bench.account.current(MemoryClass::weights), 2 * kOut * kIn * 2) << trained;
  }
}

TEST(PackedTraining, AStepWithoutAResultLeavesPackedWeights) {
  Training training(model(/*tied=*/false), packing_backend::table());
  training.trainer.step(1, tiny_batches(4, 2));
  const std::vector<double> before = training.bits();
  training.runner->model().visit_parameters([&](Parameter& parameter) {
    if (parameter.name() != "model.norm.weight") return;
    const std::vector<double> values = to_doubles(training.runner->exec(), parameter.value());
    std::vector<double> spoilt = values;
    spoilt[1] = std::numeric_limits<double>::quiet_NaN();
    from_doubles(training.runner->exec(), spoilt, parameter.value());
    EXPECT_FALSE(training.trainer.step(2, tiny_batches(4, 2, 2)).finite);
    from_doubles(training.runner->exec(), values, parameter.value());
  });
  EXPECT_EQ(training.bits(), before);
  Training other(model(/*tied=*/false), packing_backend::table());
  other.trainer.step(1, tiny_batches(4, 2));
  EXPECT_EQ(training.trainer.step(2, tiny_batches(4, 2, 2)).loss,
            other.trainer.step(2, tiny_batches(4, 2, 2)).loss);
}

}  // namespace
}  // namespace konclave
