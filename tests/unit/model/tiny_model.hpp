#pragma once

#include "base/rng.hpp"
#include "train/trainer.hpp"

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace konclave {

inline constexpr int kVocabulary = 11, kLength = 5;

/// A dense and an MoE layer, grouped queries, and everything else that a model may have.
inline ModelDefinition tiny_model(DType compute = DType::fp64) {
  ModelDefinition definition;
  definition.compute = compute;
  ModelConfig& model = definition.model;
  model.vocab_size = kVocabulary;
  model.sequence_length = kLength;
  model.hidden_size = 8;
  model.num_layers = 2;
  model.num_heads = 4;
  model.num_kv_heads = 2;
  model.head_dim = 4;
  model.ffn_hidden_size = 12;
  model.rope_theta = 100;
  model.qk_norm = true;
  model.qkv_bias = true;
  MoeConfig& moe = definition.moe;
  moe.num_experts = 4;
  moe.top_k = 2;
  moe.ffn_hidden_size = 6;
  moe.layer_frequency = {0, 1};
  moe.balancing = {"aux_loss"};
  moe.aux_loss_coefficients = {0.1};
  moe.z_loss_coefficient = 0.01;
  return definition;
}

/// `sequences` random sequences in micro-batches of `micro_size`. Every third label is not scored,
/// and all but one of the first sequence, so that micro-batches differ in what they score.
inline std::vector<HostMicroBatch> tiny_batches(int sequences, int micro_size, int step = 1,
                                                int length = kLength) {
  const RandomStream stream(static_cast<std::uint64_t>(step), "tokens");
  std::vector<HostMicroBatch> batches;
  for (int row = 0; row < sequences * length; ++row) {
    if (row % (micro_size * length) == 0) batches.emplace_back();
    const auto draw = [&](int i) {
      return static_cast<int>(stream.bits(static_cast<std::uint64_t>(i)) % kVocabulary);
    };
    const bool scored = row % 3 != 0 && (row >= length || row == 1);
    batches.back().tokens.push_back(draw(row));
    batches.back().labels.push_back(scored ? draw(row + 1) : -1);
  }
  return batches;
}

/// A model with its memory; weights from a seed, larger than usual so that routes differ.
inline std::unique_ptr<ModelRunner> tiny_runner(ModelDefinition definition, OpTable table,
                                                const Groups& groups = Groups::alone()) {
  definition.model.init_std = 0.3;
  auto runner = std::make_unique<ModelRunner>(definition, groups, /*trainable=*/true,
                                              std::move(table), BackendConfig());
  runner->model().initialise(runner->exec(), /*seed=*/7);
  runner->weights_changed();
  return runner;
}

}  // namespace konclave
