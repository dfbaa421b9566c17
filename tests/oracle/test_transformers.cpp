// Models of `transformers` (make_transformers.py): logits, loss, every gradient, and weights after
// five steps of AdamW.

#include "ops/backend_list.hpp"
#include "oracle_case.hpp"
#include "tensor/compare.hpp"
#include "tensor/host_copy.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <tuple>

namespace konclave {
namespace {

/// How far a result may be from transformers': largest difference of logits, norm-wise relative
/// difference of gradients, and of weights.
struct Bounds {
  double logits, gradients, weights, loss;
};
constexpr Bounds bounds(DType type) {
  return type == DType::fp64 ? Bounds{1e-10, 1e-10, 1e-10, 1e-10} : Bounds{2e-5, 1e-4, 1e-4, 1e-5};
}

struct Model {
  const char* name;
  DType type;
  const char* backend;
};

void PrintTo(const Model& model, std::ostream* out) {
  *out << model.name << " " << name_of(model.type) << " " << model.backend;
}

std::string test_name(const testing::TestParamInfo<Model>& info) {
  return std::string(info.param.name) + "_" + std::string(name_of(info.param.type)) + "_" +
         info.param.backend;
}

class Transformers : public testing::TestWithParam<Model> {
 protected:
  BackendConfig backends() const {
    const std::string name = GetParam().backend;
    return {name, name, name};
  }

  oracle::Case case_{GetParam().name, GetParam().type};
  ModelRunner runner_{case_.definition(), Groups::alone(), /*trainable=*/true, built_backends(),
                      backends()};
};

double scored(const HostMicroBatch& batch) {
  return static_cast<double>(
      std::count_if(batch.labels.begin(), batch.labels.end(), [](int l) { return l >= 0; }));
}

TEST_P(Transformers, LogitsAndLoss) {
  case_.load(runner_);
  std::vector<double> logits;

  const Evaluation result =
      runner_.evaluate(case_.batch(0), case_.definition().model.sequence_length, &logits);

  const Bounds bound = bounds(GetParam().type);
  const auto expected = oracle::values(case_.results("forward").at("logits"));
  EXPECT_LT(difference(logits, expected).max_absolute, bound.logits);
  EXPECT_NEAR(result.loss(), case_.losses()[0], bound.loss);
}

TEST_P(Transformers, EveryGradient) {
  case_.load(runner_);
  const HostMicroBatch batch = case_.batch(0);

  runner_.model().visit_parameters([&](const Parameter& parameter) {
    from_doubles(runner_.exec(),
                 std::vector<double>(static_cast<std::size_t>(parameter.size()), 0.0),
                 parameter.grad());
  });
  runner_.train({batch}, {1 / scored(batch), runner_.moe_step(/*training=*/true)});

  const SafetensorsFile expected = case_.results("grads");
  std::size_t compared = 0;
  runner_.model().visit_parameters([&](const Parameter& parameter) {
    const auto gradient = to_doubles(runner_.exec(), parameter.grad());
    const Difference far = difference(gradient, oracle::values(expected.at(parameter.name())));
    EXPECT_LT(far.relative_norm, bounds(GetParam().type).gradients) << parameter.name();
    ++compared;
  });
  EXPECT_EQ(compared, expected.entries().size());
}

TEST_P(Transformers, FiveSteps) {
  case_.load(runner_);
  Trainer trainer(runner_, case_.optimizer(), case_.steps());
  const Bounds bound = bounds(GetParam().type);

  for (int step = 0; step < case_.steps(); ++step) {
    const StepMetrics metrics = trainer.step(step + 1, {case_.batch(step)});
    const auto at = static_cast<std::size_t>(step);
    EXPECT_NEAR(metrics.loss, case_.losses()[at], bound.loss) << "step " << step + 1;
    EXPECT_NEAR(metrics.grad_norm / case_.gradient_norms()[at], 1, bound.gradients)
        << "step " << step + 1;
  }

  trainer.optimizer().restore_values(runner_.exec());
  const SafetensorsFile expected = case_.results("after5");
  runner_.model().visit_parameters([&](const Parameter& parameter) {
    const auto weights = to_doubles(runner_.exec(), parameter.value());
    const Difference far = difference(weights, oracle::values(expected.at(parameter.name())));
    EXPECT_LT(far.relative_norm, bound.weights) << parameter.name();
  });
}

constexpr const char* kAuto = "auto";

INSTANTIATE_TEST_SUITE_P(Fp32, Transformers,
                         testing::Values(Model{"mixtral", DType::fp32, kAuto},
                                         Model{"mixtral", DType::fp32, "reference"},
                                         Model{"qwen2_moe", DType::fp32, kAuto},
                                         Model{"llama", DType::fp32, kAuto},
                                         Model{"mistral", DType::fp32, kAuto}),
                         test_name);
INSTANTIATE_TEST_SUITE_P(
    Fp64, Transformers,
    testing::Values(Model{"mixtral", DType::fp64, kAuto},
                    Model{"mixtral", DType::fp64, "reference"}, Model{"llama", DType::fp64, kAuto},
                    Model{"llama_tied", DType::fp64, kAuto},
                    Model{"llama_yarn", DType::fp64, kAuto}, Model{"mistral", DType::fp64, kAuto},
                    Model{"qwen2", DType::fp64, kAuto}, Model{"qwen2_moe", DType::fp64, kAuto},
                    Model{"qwen2_moe", DType::fp64, "reference"},
                    Model{"qwen3_moe", DType::fp64, kAuto},
                    Model{"qwen3_moe_pre_softmax", DType::fp64, kAuto}),
    test_name);

/// bf16 weights and activations follow the fp32 losses at the size of bf16's rounding.
TEST(TransformersBf16, LossesStayNear) {
  const oracle::Case wide("mixtral", DType::fp32);
  ModelDefinition definition = wide.definition();
  definition.compute = DType::bf16;
  ModelRunner runner(definition, Groups::alone(), /*trainable=*/true, built_backends(), {});
  wide.load(runner);
  Trainer trainer(runner, wide.optimizer(), wide.steps());
  double far = 0;
  for (int step = 0; step < wide.steps(); ++step) {
    const StepMetrics metrics = trainer.step(step + 1, {wide.batch(step)});
    far += std::abs(metrics.loss - wide.losses()[static_cast<std::size_t>(step)]) / wide.steps();
  }
  EXPECT_LT(far, 2e-2);
  EXPECT_GT(far, 0) << "bf16 cannot follow fp32 to the bit";
}

}  // namespace
}  // namespace konclave
