#include "deck/check_report.hpp"
#include "model/flops.hpp"
#include "tests/unit/model/tiny_model.hpp"
#include "tests/unit/model/workbench.hpp"

namespace konclave {
namespace {

/// Weights of products that a token passes, hidden 8, 4 heads of 4, 2 of keys:
///   head 8*11;  attention q and o 2*8*16, k and v 2*8*8;  MLP 3*8*12;
///   router 8*4 and two experts 3*8*6.
/// Attention: two products over on average S/2 = 2.5 keys of 16 numbers, 2 operations each.
TEST(Flops, AreRightByHand) {
  const int head = 88, attention = 256 + 128, dense = 288, moe = 32 + 2 * 144;
  const double scores = 2 * 2.5 * 16 * 2;
  EXPECT_EQ(training_flops_per_token(tiny_model()),
            3 * (2 * (head + 2 * attention + dense + moe) + 2 * scores));

  ModelDefinition shared = tiny_model();
  shared.moe.shared_ffn_hidden_size = 10;
  const int products = head + 2 * attention + dense + moe + 3 * 8 * 10;
  EXPECT_EQ(training_flops_per_token(shared), 3 * (2 * products + 2 * scores));
  shared.moe.shared_gate = true;
  EXPECT_EQ(training_flops_per_token(shared), 3 * (2 * (products + 8) + 2 * scores));

  ModelDefinition dense_only = tiny_model();
  dense_only.moe = {};
  dense_only.model.tie_embeddings = true;
  EXPECT_EQ(training_flops_per_token(dense_only),
            3 * (2 * (head + 2 * attention + 2 * dense) + 2 * scores));
}

TEST(ParameterCount, IsThatOfTheModelBuilt) {
  for (const bool option : {false, true}) {
    for (const std::vector<int>& layers : {std::vector<int>{0, 1}, {1, 1}, {0, 0}, {}}) {
      ModelDefinition definition = tiny_model();
      definition.model.tie_embeddings = option;
      definition.model.qk_norm = !option;
      definition.model.qkv_bias = option;
      definition.model.head_dim = option ? 0 : 4;
      definition.model.num_kv_heads = option ? 0 : 2;
      definition.moe.layer_frequency = layers;
      definition.moe.shared_ffn_hidden_size = 10;
      definition.moe.shared_gate = option;
      std::int64_t total = 0;
      for (const ParameterSpec& spec : parameter_specs(definition)) {
        total += Parameter(spec, {}).size();
      }
      EXPECT_EQ(total, count_parameters(definition).total) << testing::PrintToString(layers);
    }
  }
}

TEST(Memory, IsAccountedByClassAndNotTakenTwice) {
  for (const DType type : {DType::bf16, DType::fp64}) {
    const std::unique_ptr<ModelRunner> runner = tiny_runner(tiny_model(type), built_backends());
    Trainer trainer(*runner, {}, 100);
    const auto peaks = [&] {
      std::vector<std::int64_t> all;
      for (int use = 0; use < kMemoryClasses; ++use) {
        all.push_back(runner->memory().peak(static_cast<MemoryClass>(use)));
      }
      all.push_back(runner->memory().peak_total());
      return all;
    };
    trainer.step(1, tiny_batches(4, 2));
    const std::vector<std::int64_t> first = peaks();
    for (int use = 0; use < kMemoryClasses; ++use) {
      EXPECT_GT(runner->memory().current(static_cast<MemoryClass>(use)), 0)
          << name_of(static_cast<MemoryClass>(use));
    }
    // Memory comes in blocks of a MiB, of which a step of this model takes a small part.
    for (int step = 2; step <= 80; ++step) trainer.step(step, tiny_batches(4, 2));
    for (int i = 0; i < 20000; ++i) runner->moe_step(/*training=*/true);
    for (int i = 0; i < 80; ++i) runner->evaluate(tiny_batches(2, 2).front(), kLength);
    EXPECT_EQ(peaks(), first);
  }
}

/// Without gradients: what evaluation and generation run on.
TEST(Memory, AnUntrainableModelHasNoGradients) {
  ModelRunner runner(tiny_model(), Groups::alone(), /*trainable=*/false, built_backends(), {});
  runner.model().initialise(runner.exec(), 1);
  runner.weights_changed();
  EXPECT_GT(runner.evaluate(tiny_batches(2, 2).front(), kLength).loss(), 0);
  EXPECT_EQ(runner.memory().peak(MemoryClass::gradients), 0);
  EXPECT_EQ(runner.memory().peak(MemoryClass::optimizer), 0);
  EXPECT_GT(runner.memory().peak(MemoryClass::weights), 0);
}

}  // namespace
}  // namespace konclave
