#include "base/file.hpp"
#include "checkpoints/hf_names.hpp"
#include "checkpoints/hugging_face.hpp"

#include <nlohmann/json.hpp>

#include <vector>

namespace konclave {

namespace {

using nlohmann::json;

struct FamilyNames {
  const char *spoken, *architecture, *model_type;
};
FamilyNames names_of(HfFamily family) {
  switch (family) {
    case HfFamily::mixtral:
      return {"Mixtral", "MixtralForCausalLM", "mixtral"};
    case HfFamily::qwen2_moe:
      return {"Qwen2-MoE", "Qwen2MoeForCausalLM", "qwen2_moe"};
    case HfFamily::llama:
      return {"Llama", "LlamaForCausalLM", "llama"};
  }
  fail("unknown family");
}

/// What no router of Hugging Face's Mixtral and Qwen2-MoE does; "" when there is nothing.
std::string router_misfit(const MoeConfig& moe) {
  if (moe.score_function != "softmax") return "moe.score_function = \"" + moe.score_function + "\"";
  if (moe.has_groups()) return "moe.num_groups above 1";
  if (moe.scaling_factor != 1) return "moe.scaling_factor other than 1";
  if (moe.expert_bias) return "moe.expert_bias = true";
  if (moe.balances_by("sinkhorn")) return "moe.balancing = \"sinkhorn\"";
  return "";
}

/// Why a family cannot be this model; "" when it can.
std::string misfit(const ModelDefinition& definition, HfFamily family) {
  const MoeConfig& moe = definition.moe;
  const bool qwen = family == HfFamily::qwen2_moe;
  if (definition.model.qk_norm) return "model.qk_norm = true";
  if (definition.model.qkv_bias && !qwen) return "model.qkv_bias = true";
  if (family == HfFamily::llama) return "";
  if (qwen && !moe.shared_gate) {
    return "moe.shared_ffn_hidden_size above 0 without moe.shared_gate";
  }
  if (!qwen && definition.num_moe_layers() < definition.model.num_layers)
    return "moe.layer_frequency with dense layers among MoE layers";
  if (!qwen && moe.pre_softmax) return "moe.pre_softmax = true";
  return router_misfit(moe);
}

json scaling_to_json(const RopeScaling& scaling) {
  if (scaling.type == "none") return nullptr;
  json value = {{"rope_type", scaling.type}, {"factor", scaling.factor}};
  if (scaling.type == "linear") return value;
  value["original_max_position_embeddings"] =
      static_cast<std::int64_t>(scaling.original_max_position_embeddings);
  if (scaling.type == "llama3") {
    value["low_freq_factor"] = scaling.low_freq_factor;
    value["high_freq_factor"] = scaling.high_freq_factor;
  } else {
    value["beta_fast"] = scaling.beta_fast;
    value["beta_slow"] = scaling.beta_slow;
    if (scaling.attention_factor > 0) value["attention_factor"] = scaling.attention_factor;
  }
  return value;
}

/// What the families with experts have besides.
void add_moe(json& config, const ModelDefinition& definition, HfFamily family) {
  const MoeConfig& moe = definition.moe;
  config["num_experts_per_tok"] = moe.top_k;
  config["router_aux_loss_coef"] = moe.aux_loss_coefficient();
  config["output_router_logits"] = false;
  if (family == HfFamily::mixtral) {
    config["num_local_experts"] = moe.num_experts;
    config["intermediate_size"] = moe.ffn_hidden_size;
    config["sliding_window"] = nullptr;
    return;
  }
  std::vector<int> dense;
  for (int layer = 0; layer < definition.model.num_layers; ++layer) {
    if (!definition.is_moe_layer(layer)) dense.push_back(layer);
  }
  config["num_experts"] = moe.num_experts;
  config["moe_intermediate_size"] = moe.ffn_hidden_size;
  config["shared_expert_intermediate_size"] = moe.shared_ffn_hidden_size;
  config["norm_topk_prob"] = !moe.pre_softmax;
  config["decoder_sparse_step"] = 1;
  config["mlp_only_layers"] = dense;
  config["qkv_bias"] = definition.model.qkv_bias;
  config["use_sliding_window"] = false;
  // Readers want a size of dense layers where there are none, too.
  if (dense.empty()) config["intermediate_size"] = moe.shared_ffn_hidden_size;
}

}  // namespace

void write_hf_config(const std::filesystem::path& folder, const ModelDefinition& definition,
                     DType type) {
  const ModelConfig& model = definition.model;
  const HfFamily family = hf_family(definition);
  const std::string why = misfit(definition, family);
  const FamilyNames names = names_of(family);
  require(why.empty(),
          "a model with " + why +
              " cannot be written for Hugging Face: of Mixtral, Qwen2-MoE and " +
              "Llama the nearest is " + names.spoken + ", which has nothing like it",
          ExitCode::input);
  // Theta and scaling stand where transformers 4 wants them; transformers 5 understands it too.
  json config = {{"architectures", {names.architecture}},
                 {"model_type", names.model_type},
                 {"torch_dtype", stored_name(type)},
                 {"vocab_size", model.vocab_size},
                 {"max_position_embeddings", model.sequence_length},
                 {"hidden_size", model.hidden_size},
                 {"hidden_act", "silu"},
                 {"num_hidden_layers", model.num_layers},
                 {"num_attention_heads", model.num_heads},
                 {"num_key_value_heads", model.kv_heads()},
                 {"head_dim", model.head_size()},
                 {"intermediate_size", model.ffn_hidden_size},
                 {"rms_norm_eps", model.norm_eps},
                 {"rope_theta", model.rope_theta},
                 {"rope_scaling", scaling_to_json(model.rope_scaling)},
                 {"tie_word_embeddings", model.tie_embeddings},
                 {"initializer_range", model.init_std},
                 {"attention_dropout", 0.0},
                 {"bos_token_id", nullptr},
                 {"eos_token_id", nullptr},
                 {"use_cache", true}};
  if (family == HfFamily::llama) {
    config["attention_bias"] = false;
    config["mlp_bias"] = false;
  } else {
    add_moe(config, definition, family);
  }
  write_text(folder / "config.json", config.dump(2) + "\n");
}

}  // namespace konclave
