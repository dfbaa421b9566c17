#include "tests/unit/model/tiny_model.hpp"
#include "tests/unit/model/workbench.hpp"

#include <cmath>
#include <map>
#include <string>

namespace konclave {
namespace {

using Values = std::map<std::string, std::vector<double>>;

OptimizerConfig settings() {
  OptimizerConfig config;
  config.lr = 0.01;
  config.schedule = "constant";
  config.clip_norm = 0;
  return config;
}

/// One step of a tiny model, and what is there afterwards.
struct OneStep {
  StepMetrics metrics;
  Values weights, gradients, first_moments, second_moments;
};

OneStep run_step(const OptimizerConfig& config, DType type = DType::fp64) {
  const std::unique_ptr<ModelRunner> runner = tiny_runner(tiny_model(type), built_backends());
  Trainer trainer(*runner, config, 100);
  OneStep result;
  result.metrics = trainer.step(1, tiny_batches(4, 2));
  for (const Optimizer::State& state : trainer.optimizer().states()) {
    const std::string& name = state.piece.parameter->name();
    const auto values = [&](const AnyIn& view) { return to_doubles(runner->exec(), view); };
    result.weights[name] = values(state.master);
    result.gradients[name] = values(state.piece.parameter->grad());
    result.first_moments[name] = values(state.first_moment);
    result.second_moments[name] = values(state.second_moment);
  }
  return result;
}

double norm(const Values& all) {
  double squares = 0;
  for (const auto& [name, values] : all) squares += dot(values, values);
  return std::sqrt(squares);
}

TEST(Optimizer, GradientNormIsThatOfAllGradientsTogether) {
  for (const DType type : {DType::bf16, DType::fp32, DType::fp64}) {
    const OneStep step = run_step(settings(), type);
    EXPECT_GT(step.metrics.grad_norm, 0.1);
    EXPECT_NEAR(step.metrics.grad_norm / norm(step.gradients), 1, 1e-14) << name_of(type);
  }
}

TEST(Optimizer, ClipsToTheWantedNormAndNoFurther) {
  const OneStep free = run_step(settings());
  for (const double clip_norm : {0.01, 1e3}) {
    OptimizerConfig config = settings();
    config.clip_norm = clip_norm;
    const OneStep step = run_step(config);
    const double clip = std::min(1.0, clip_norm / (free.metrics.grad_norm + 1e-6));
    EXPECT_EQ(step.metrics.grad_norm, free.metrics.grad_norm) << "norm before clipping";
    for (const auto& [name, gradient] : free.gradients) {
      std::vector<double> first = gradient, second = gradient;
      for (double& value : first) value *= clip * (1 - 0.9);
      for (double& value : second) value *= value * clip * clip * (1 - 0.95);
      EXPECT_TRUE(close(step.first_moments.at(name), first, {1e-13, 1e-13})) << name;
      EXPECT_TRUE(close(step.second_moments.at(name), second, {1e-13, 1e-13})) << name;
    }
  }
}

TEST(Optimizer, DecaysMatricesOrAll) {
  OptimizerConfig config = settings();
  config.weight_decay = 0;
  const OneStep none = run_step(config);
  config.weight_decay = 0.5;
  const OneStep matrices = run_step(config);
  config.decay = "all";
  const OneStep all = run_step(config);

  const std::unique_ptr<ModelRunner> start = tiny_runner(tiny_model(), built_backends());
  start->model().visit_parameters([&](const Parameter& parameter) {
    const std::vector<double> before = to_doubles(start->exec(), parameter.value());
    std::vector<double> decayed = none.weights.at(parameter.name());
    for (std::size_t i = 0; i < decayed.size(); ++i) decayed[i] -= 0.01 * 0.5 * before[i];
    const bool is_matrix = parameter.spec().shape.size() > 1;
    const Tolerance allowed{1e-14, 1e-14};
    EXPECT_TRUE(close(all.weights.at(parameter.name()), decayed, allowed)) << parameter.name();
    EXPECT_TRUE(close(matrices.weights.at(parameter.name()),
                      is_matrix ? decayed : none.weights.at(parameter.name()), allowed))
        << parameter.name();
  });
}

/// A bf16 weight follows a master of its own; fp32 and fp64 weights are their own masters.
TEST(Optimizer, MastersAreApartWhereTypesDiffer) {
  for (const DType type : {DType::bf16, DType::fp32, DType::fp64}) {
    const std::unique_ptr<ModelRunner> runner = tiny_runner(tiny_model(type), built_backends());
    Trainer trainer(*runner, settings(), 100);
    trainer.step(1, tiny_batches(4, 2));
    trainer.optimizer().restore_values(runner->exec());
    for (const Optimizer::State& state : trainer.optimizer().states()) {
      const ParameterSpec& spec = state.piece.parameter->spec();
      EXPECT_EQ(state.master.type(), accum_type(type));
      EXPECT_EQ(state.master.data() == state.piece.parameter->value().data(),
                spec.type == accum_type(type))
          << spec.name;
      const std::vector<double> master = to_doubles(runner->exec(), state.master);
      Tensors tensors(runner->exec());
      const AnyView rounded = tensors.poisoned(spec.type, state.master.size());
      from_doubles(runner->exec(), master, rounded);
      EXPECT_EQ(to_doubles(runner->exec(), state.piece.parameter->value()),
                to_doubles(runner->exec(), rounded))
          << spec.name;
    }
  }
}

TEST(Optimizer, ResetTakesTheValuesAndForgetsTheMoments) {
  const std::unique_ptr<ModelRunner> runner =
      tiny_runner(tiny_model(DType::bf16), built_backends());
  Trainer trainer(*runner, settings(), 100);
  trainer.step(1, tiny_batches(4, 2));
  runner->model().initialise(runner->exec(), /*seed=*/99);
  trainer.optimizer().reset(runner->exec());
  for (const Optimizer::State& state : trainer.optimizer().states()) {
    EXPECT_EQ(to_doubles(runner->exec(), state.master),
              to_doubles(runner->exec(), state.piece.parameter->value()));
    const std::vector<double> zeros(static_cast<std::size_t>(state.piece.parameter->size()));
    EXPECT_EQ(to_doubles(runner->exec(), state.first_moment), zeros);
    EXPECT_EQ(to_doubles(runner->exec(), state.second_moment), zeros);
  }
}

}  // namespace
}  // namespace konclave
