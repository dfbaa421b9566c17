#include "tests/unit/model/tiny_model.hpp"
#include "tests/unit/model/workbench.hpp"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

namespace konclave {
namespace {

TEST(Block, BackwardIsTheGradient) {
  for (const int layer : {0, 1}) {
    SCOPED_TRACE(layer == 0 ? "dense" : "MoE");
    Workbench bench;
    Block block(tiny_model(), Groups::alone(), layer, /*moe_index=*/0, bench.storage());
    EXPECT_EQ(block.is_moe(), layer == 1);
    const Rotary rotary(bench.exec, rotary_frequencies(4, 50, {}), 16, DType::fp64, bench.weights);
    const Sequences sequences = bench.sequences({4, 3});
    const AnyView x = bench.tensors.random("x", DType::fp64, 7, 8);
    const MoeStep step = bench.moe_step({0, 7}, 7, /*layers=*/1, /*experts=*/4);
    const AnyView sums(DType::fp64, step.statistics.sums.data(), {1, MoeStatistics::columns(4), 1},
                       2);
    const auto copy = [&](const AnyIn& from, const AnyView& to) {
      from_doubles(bench.exec, to_doubles(bench.exec, from), to);
    };
    Block::Saved saved;
    bench.expect_layer_gradients(
        block, x,
        [&](const AnyIn& in, const AnyView& y) {
          bench.set(sums, 0);
          copy(block.forward(bench.context(), rotary, sequences, step, in, saved), y);
        },
        [&](const AnyIn& dy, const AnyView& dx) {
          copy(dy, dx);
          block.backward(bench.context(), rotary, sequences, saved, dx);
        },
        [&] {
          const std::vector<double> all = to_doubles(bench.exec, sums);
          return all[MoeStatistics::kAuxLoss] + all[MoeStatistics::kZLoss];
        });
  }
}

/// Mean loss over the scored tokens plus the balance losses, by every parameter of the model.
TEST(Transformer, BackwardIsTheGradientOfTheWholeObjective) {
  for (const bool tied : {false, true}) {
    const int window = tied ? 0 : 1;
    SCOPED_TRACE(testing::Message() << (tied ? "tied" : "untied") << ", window " << window);
    ModelDefinition definition = tiny_model();
    definition.model.tie_embeddings = tied;
    definition.moe.window = window;
    const std::unique_ptr<ModelRunner> runner = tiny_runner(definition, built_backends());
    const ExecSpace exec = runner->exec();
    const HostMicroBatch batch = tiny_batches(2, 2).front();
    const std::vector<Leaf> leaves = randomised_leaves(exec, runner->model(), 0.6);
    const double scale =
        1.0 / static_cast<double>(std::count_if(batch.labels.begin(), batch.labels.end(),
                                                [](int label) { return label >= 0; }));
    const auto objective = [&] {
      runner->weights_changed();
      const MoeStep moe = runner->moe_step(/*training=*/true, {window == 0 ? 1 : 0.5, 0.1, 0.5});
      const double loss = scale * runner->train({batch}, {scale, moe}).front();
      const std::vector<double> sums =
          to_host(exec, View1<double>(moe.statistics.sums.data(), moe.statistics.sums.size()));
      return loss + sums[MoeStatistics::kAuxLoss] + sums[MoeStatistics::kZLoss];
    };
    for (const Leaf& leaf : leaves) ops::fill_zero(exec, leaf.gradient);
    objective();
    std::vector<std::vector<double>> found;
    for (const Leaf& leaf : leaves) found.push_back(to_doubles(exec, leaf.gradient));
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      expect_gradient(exec, leaves[i], found[i], objective);
    }
  }
}

TEST(Transformer, EvaluationAgreesWithTrainingAndWithItself) {
  const std::unique_ptr<ModelRunner> runner = tiny_runner(tiny_model(), built_backends());
  const HostMicroBatch batch = tiny_batches(3, 3).front();
  std::vector<double> logits;
  const Evaluation evaluated = runner->evaluate(batch, kLength, &logits);
  const std::vector<double> trained =
      runner->train({batch}, {1, runner->moe_step(/*training=*/true)});
  EXPECT_NEAR(evaluated.loss_sum, trained.front(), 1e-13);

  // The loss by hand from the logits.
  double loss = 0;
  for (std::size_t t = 0; t < batch.labels.size(); ++t) {
    if (batch.labels[t] < 0) continue;
    double sum = 0;
    for (std::size_t v = 0; v < kVocabulary; ++v) sum += std::exp(logits[t * kVocabulary + v]);
    loss += std::log(sum) - logits[t * kVocabulary + static_cast<std::size_t>(batch.labels[t])];
  }
  EXPECT_NEAR(evaluated.loss_sum, loss, 1e-12);

  // Logits of the second sequence alone, cut short: what follows has no influence.
  const std::vector<int> beginning(batch.tokens.begin() + kLength,
                                   batch.tokens.begin() + kLength + 3);
  const auto row = logits.begin() + (kLength + 2) * kVocabulary;
  EXPECT_TRUE(close(runner->next_logits(beginning), {row, row + kVocabulary}, {1e-13, 1e-13}));
}

TEST(Transformer, ParametersAreNamedAfterTheirPlaces) {
  ModelDefinition definition = tiny_model();
  std::set<std::string> names;
  for (const ParameterSpec& spec : parameter_specs(definition)) names.insert(spec.name);
  EXPECT_EQ(names.size(), parameter_specs(definition).size()) << "a name is given twice";
  for (const char* name :
       {"model.embed_tokens.weight", "model.layers.0.input_layernorm.weight",
        "model.layers.0.self_attn.q_proj.bias", "model.layers.0.mlp.gate_proj.weight",
        "model.layers.1.self_attn.k_norm.weight", "model.layers.1.post_attention_layernorm.weight",
        "model.layers.1.moe.router.weight", "model.layers.1.moe.experts.down_proj.weight",
        "model.norm.weight", "lm_head.weight"}) {
    EXPECT_EQ(names.count(name), 1U) << name;
  }
  definition.model.tie_embeddings = true;
  for (const ParameterSpec& spec : parameter_specs(definition)) names.erase(spec.name);
  EXPECT_EQ(names, std::set<std::string>{"lm_head.weight"});
}

TEST(MicroBatch, NeedsWholeSequencesAndWindows) {
  Workbench bench;
  const auto make = [&](std::size_t rows, std::size_t labels, int window) {
    return make_micro_batch(bench.exec, bench.activations,
                            {std::vector<int>(rows, 1), std::vector<int>(labels, -1)},
                            {kLength, window, 0, kVocabulary}, Groups::alone());
  };
  EXPECT_THROW(make(7, 7, 1), Error);
  EXPECT_THROW(make(10, 9, 1), Error);
  EXPECT_THROW(make(15, 15, 2), Error);
  EXPECT_EQ(make(20, 20, 2).windows.count, 2);
  EXPECT_EQ(make(20, 20, 0).windows.count, 1);
  EXPECT_EQ(to_host(bench.exec, make(20, 20, 2).windows.offsets), (std::vector<int>{0, 10, 20}));
}

}  // namespace
}  // namespace konclave
