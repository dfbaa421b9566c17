#include "model/flops.hpp"

namespace konclave {

double training_flops_per_token(const ModelDefinition& definition) {
  const ModelConfig& model = definition.model;
  const double hidden = model.hidden_size;
  const double query = static_cast<double>(model.num_heads) * model.head_size();
  const double key = static_cast<double>(model.kv_heads()) * model.head_size();
  double weights = hidden * model.vocab_size;
  for (int layer = 0; layer < model.num_layers; ++layer) {
    weights += 2 * hidden * query + 2 * hidden * key;
    if (definition.is_moe_layer(layer)) {
      const MoeConfig& moe = definition.moe;
      weights += hidden * moe.num_experts + 3.0 * moe.top_k * hidden * moe.ffn_hidden_size;
      weights += 3.0 * hidden * moe.shared_ffn_hidden_size + (moe.shared_gate ? hidden : 0);
    } else {
      weights += 3 * hidden * model.ffn_hidden_size;
    }
  }
  const double attention = 6.0 * model.num_layers * model.sequence_length * query;
  return 6 * weights + attention;
}

}  // namespace konclave
