#pragma once

#include "base/dtype.hpp"
#include "layers/config.hpp"
#include "moe/config.hpp"

namespace konclave {

/// Deck section [model].
struct ModelConfig {
  int vocab_size = 0;
  int sequence_length = 0;
  int hidden_size = 0;
  int num_layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;     ///< 0 takes num_heads
  int head_dim = 0;         ///< 0 takes hidden_size / num_heads
  int ffn_hidden_size = 0;  ///< of the dense MLP layers
  double norm_eps = 1e-5;
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  bool qk_norm = false;
  bool qkv_bias = false;
  bool tie_embeddings = false;
  double init_std = 0.02;

  int kv_heads() const { return num_kv_heads > 0 ? num_kv_heads : num_heads; }
  int head_size() const { return head_dim > 0 ? head_dim : hidden_size / num_heads; }
};

/// Everything that defines a model: what a checkpoint needs to be used again.
struct ModelDefinition {
  ModelConfig model;
  MoeConfig moe;
  DType compute = DType::bf16;

  bool is_moe_layer(int layer) const {
    return moe.num_experts > 0 && (moe.layer_frequency.empty() ||
                                   moe.layer_frequency[static_cast<std::size_t>(layer)] != 0);
  }
  int num_moe_layers() const {
    int count = 0;
    for (int layer = 0; layer < model.num_layers; ++layer) count += is_moe_layer(layer) ? 1 : 0;
    return count;
  }
};

}  // namespace konclave
