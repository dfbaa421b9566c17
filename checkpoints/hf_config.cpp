#include "base/file.hpp"
#include "checkpoints/hugging_face.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

namespace konclave {

namespace {

using nlohmann::json;

/// A JSON object of a config file. A key that is absent counts as null, as in transformers.
class Section {
 public:
  Section(std::string where, json values) : where_(std::move(where)), values_(std::move(values)) {
    require(values_.is_object(), where_ + " is no JSON object", ExitCode::input);
  }

  [[noreturn]] void refuse(const std::string& key, const std::string& why) const {
    fail(where_ + ": " + key + (has(key) ? " = " + values_.at(key).dump() : "") + ": " + why,
         ExitCode::input);
  }

  const json& values() const { return values_; }
  bool has(const std::string& key) const {
    return values_.contains(key) && !values_.at(key).is_null();
  }

  int positive(const std::string& key) const {
    const bool good = has(key) && values_.at(key).is_number_integer() && values_.at(key) > 0 &&
                      values_.at(key) <= std::numeric_limits<int>::max();
    if (!good) refuse(key, "wants a whole number above 0");
    return values_.at(key).get<int>();
  }
  int positive(const std::string& key, int otherwise) const {
    return has(key) ? positive(key) : otherwise;
  }

  double number(const std::string& key) const {
    if (!has(key) || !values_.at(key).is_number()) refuse(key, "wants a number");
    return values_.at(key).get<double>();
  }
  double number(const std::string& key, double otherwise) const {
    return has(key) ? number(key) : otherwise;
  }

  bool flag(const std::string& key, bool otherwise) const {
    if (has(key) && !values_.at(key).is_boolean()) refuse(key, "wants true or false");
    return has(key) ? values_.at(key).get<bool>() : otherwise;
  }

  /// Those of a list; none where the key is absent.
  std::set<int> whole_numbers(const std::string& key) const {
    std::set<int> numbers;
    if (!has(key)) return numbers;
    if (!values_.at(key).is_array()) refuse(key, "wants a list of whole numbers");
    for (const json& value : values_.at(key)) {
      if (!value.is_number_integer()) refuse(key, "wants a list of whole numbers");
      numbers.insert(value.get<int>());
    }
    return numbers;
  }

  std::string text(const std::string& key, const std::string& otherwise) const {
    if (has(key) && !values_.at(key).is_string()) refuse(key, "wants a text");
    return has(key) ? values_.at(key).get<std::string>() : otherwise;
  }

  Section section(const std::string& key) const {
    return {where_ + ": " + key, has(key) ? values_.at(key) : json::object()};
  }

 private:
  std::string where_;
  json values_;
};

Section read_section(const std::filesystem::path& path) {
  try {
    return {path.string(), json::parse(read_text(path))};
  } catch (const json::exception& error) {
    fail(path.string() + " is no JSON: " + error.what(), ExitCode::input);
  }
}

/// What changes the result and is not built.
void refuse_unsupported(const Section& config, const std::string& model_type, int sequence_length) {
  const std::string act = config.text("hidden_act", "silu");
  if (act != "silu") config.refuse("hidden_act", "only silu is supported");
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    if (config.flag(key, false)) config.refuse(key, "these biases are not supported");
  }
  if (config.has("quantization_config")) {
    config.refuse("quantization_config", "quantised weights are not supported");
  }
  if (config.number("partial_rotary_factor", 1) != 1) {
    config.refuse("partial_rotary_factor", "heads are rotated as a whole");
  }
  // A mistral config without the key means 4096, with null it means none.
  constexpr int kNone = std::numeric_limits<int>::max();
  const bool implied = model_type == "mistral" && !config.values().contains("sliding_window");
  const bool used = model_type != "qwen2_moe" || config.flag("use_sliding_window", false);
  const int window = used ? config.positive("sliding_window", implied ? 4096 : kNone) : kNone;
  if (!used &&
      config.values().value("layer_types", json()).dump().find("sliding") != std::string::npos) {
    config.refuse("layer_types", "has layers with a window, though use_sliding_window is false");
  }
  if (window < sequence_length) {
    config.refuse("sliding_window", "a window of " + std::to_string(window) +
                                        " tokens is shorter than the sequence of " +
                                        std::to_string(sequence_length) +
                                        ", and attention here has no window; ask for a "
                                        "shorter one (model.sequence_length, or convert "
                                        "--sequence-length)");
  }
}

RopeScaling read_scaling(const Section& rope, int max_positions) {
  static const std::map<std::string, std::set<std::string>> kKeys = {
      {"default", {}},
      {"linear", {"factor"}},
      {"llama3",
       {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}},
      {"yarn",
       {"factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "attention_factor",
        "truncate"}}};
  const std::string type = rope.text("rope_type", rope.text("type", "default"));
  const auto known = kKeys.find(type);
  if (known == kKeys.end()) {
    rope.refuse(rope.has("rope_type") ? "rope_type" : "type",
                "only default, linear, llama3 and yarn are supported");
  }
  for (const auto& [key, value] : rope.values().items()) {
    const bool common = key == "rope_type" || key == "type" || key == "rope_theta" ||
                        (key == "partial_rotary_factor" && value == 1);
    if (!common && !value.is_null() && !known->second.contains(key)) {
      rope.refuse(key, "is not known for type " + type);
    }
  }
  if (!rope.flag("truncate", true)) rope.refuse("truncate", "only true is supported");
  if (type == "default") return {};
  const RopeScaling defaults;
  return {.type = type,
          .factor = rope.number("factor"),
          .original_max_position_embeddings =
              type == "linear" ? 0 : rope.number("original_max_position_embeddings", max_positions),
          .low_freq_factor = rope.number("low_freq_factor", defaults.low_freq_factor),
          .high_freq_factor = rope.number("high_freq_factor", defaults.high_freq_factor),
          .beta_fast = rope.number("beta_fast", defaults.beta_fast),
          .beta_slow = rope.number("beta_slow", defaults.beta_slow),
          .attention_factor = rope.number("attention_factor", 0)};
}

void read_rope(const Section& config, const std::string& model_type, ModelConfig& model) {
  // transformers 5 has one table for all of it; before, theta stood beside `rope_scaling`.
  const bool one_table = config.has("rope_parameters");
  const Section rope = config.section(one_table ? "rope_parameters" : "rope_scaling");
  const Section& place = rope.has("rope_theta") ? rope : config;
  const double otherwise = model_type == "mixtral" ? 1e6 : 1e4;  // transformers' own defaults
  model.rope_theta = place.number("rope_theta", otherwise);
  model.rope_scaling = read_scaling(rope, config.positive("max_position_embeddings"));
}

DType read_type(const Section& config) {
  const char* const key = config.has("dtype") ? "dtype" : "torch_dtype";
  const std::string name = config.text(key, "float32");
  if (name == "float16") return DType::fp32;  // holds every half
  const auto type = parse_stored_name(name);
  if (!type) config.refuse(key, "wants float64, float32, float16 or bfloat16");
  return *type;
}

/// Which layers are MoE layers, as MoeConfig has it: empty for all.
std::vector<int> read_layers(const Section& config, int num_layers) {
  const int step = config.positive("decoder_sparse_step", 1);
  const std::set<int> dense = config.whole_numbers("mlp_only_layers");
  std::vector<int> frequency;
  for (int layer = 0; layer < num_layers; ++layer) {
    frequency.push_back((layer + 1) % step == 0 && !dense.contains(layer) ? 1 : 0);
  }
  const auto count = std::count(frequency.begin(), frequency.end(), 1);
  if (count == 0) {
    config.refuse(config.has("mlp_only_layers") ? "mlp_only_layers" : "decoder_sparse_step",
                  "leaves no layer with experts");
  }
  return count == num_layers ? std::vector<int>{} : frequency;
}

MoeConfig read_moe(const Section& config, const std::string& model_type, int num_layers) {
  const bool qwen = model_type == "qwen2_moe";
  const char* const experts = qwen ? "num_experts" : "num_local_experts";
  MoeConfig moe;
  moe.num_experts = config.positive(experts);
  moe.top_k = config.positive("num_experts_per_tok");
  if (moe.top_k > moe.num_experts) {
    config.refuse("num_experts_per_tok", std::string("is more than ") + experts);
  }
  moe.ffn_hidden_size = config.positive(qwen ? "moe_intermediate_size" : "intermediate_size");
  if (qwen) {
    moe.shared_ffn_hidden_size = config.positive("shared_expert_intermediate_size");
    moe.shared_gate = true;
    moe.pre_softmax = !config.flag("norm_topk_prob", false);
    moe.layer_frequency = read_layers(config, num_layers);
  }
  const double coefficient = config.number("router_aux_loss_coef", 0);
  if (coefficient != 0) {
    moe.balancing = {"aux_loss"};
    moe.aux_loss_coefficients = {coefficient};
  }
  return moe;
}

void check_heads(const Section& config, const ModelConfig& model) {
  if (model.num_heads % model.num_kv_heads != 0) {
    config.refuse("num_key_value_heads",
                  "does not divide num_attention_heads = " + std::to_string(model.num_heads));
  }
  if (!config.has("head_dim") && model.hidden_size % model.num_heads != 0) {
    config.refuse("num_attention_heads", "without head_dim it has to divide hidden_size");
  }
}

}  // namespace

ModelDefinition read_hf_config(const std::filesystem::path& folder, int sequence_length) {
  const Section config = read_section(folder / "config.json");
  const std::string model_type = config.text("model_type", "");
  static const std::set<std::string> kKnown = {"mixtral", "qwen2_moe", "llama", "mistral"};
  if (!kKnown.contains(model_type)) {
    config.refuse("model_type", "only mixtral, qwen2_moe, llama and mistral are supported");
  }
  ModelDefinition definition;
  ModelConfig& model = definition.model;
  model.vocab_size = config.positive("vocab_size");
  model.sequence_length =
      sequence_length > 0 ? sequence_length : config.positive("max_position_embeddings");
  model.hidden_size = config.positive("hidden_size");
  model.num_layers = config.positive("num_hidden_layers");
  model.num_heads = config.positive("num_attention_heads");
  model.num_kv_heads = config.positive("num_key_value_heads", model.num_heads);
  model.head_dim = config.positive("head_dim", std::max(1, model.hidden_size / model.num_heads));
  model.ffn_hidden_size = config.positive("intermediate_size");
  model.norm_eps = config.number("rms_norm_eps");
  model.tie_embeddings = config.flag("tie_word_embeddings", false);
  model.init_std = config.number("initializer_range", model.init_std);
  check_heads(config, model);
  read_rope(config, model_type, model);
  const bool qwen = model_type == "qwen2_moe";
  if (qwen) model.qkv_bias = config.flag("qkv_bias", true);
  if (qwen || model_type == "mixtral") {
    definition.moe = read_moe(config, model_type, model.num_layers);
  }
  refuse_unsupported(config, model_type, model.sequence_length);
  definition.compute = read_type(config);
  return definition;
}

}  // namespace konclave
