#include "oracle_case.hpp"

#include "data/dataset.hpp"
#include "tensor/host_copy.hpp"

#include <cstring>
#include <fstream>

namespace konclave::oracle {

namespace {

template <typename X> std::vector<double> converted(const SafetensorsEntry& entry) {
  std::vector<X> raw(entry.bytes / sizeof(X));
  std::memcpy(raw.data(), entry.data, entry.bytes);
  return std::vector<double>(raw.begin(), raw.end());
}

RopeScaling read_scaling(const nlohmann::json& json) {
  RopeScaling scaling;
  if (json.is_null()) return scaling;
  scaling.type = json.at("type");
  scaling.factor = json.value("factor", scaling.factor);
  scaling.original_max_position_embeddings = json.value("original_max_position_embeddings", 0.0);
  scaling.low_freq_factor = json.value("low_freq_factor", scaling.low_freq_factor);
  scaling.high_freq_factor = json.value("high_freq_factor", scaling.high_freq_factor);
  scaling.beta_fast = json.value("beta_fast", scaling.beta_fast);
  scaling.beta_slow = json.value("beta_slow", scaling.beta_slow);
  return scaling;
}

ModelDefinition read_definition(const nlohmann::json& config, DType compute) {
  ModelDefinition definition;
  definition.compute = compute;
  ModelConfig& model = definition.model;
  model.vocab_size = config.at("vocab_size");
  model.sequence_length = config.at("sequence_length");
  model.hidden_size = config.at("hidden_size");
  model.num_layers = config.at("num_layers");
  model.num_heads = config.at("num_heads");
  model.num_kv_heads = config.at("num_kv_heads");
  model.head_dim = config.at("head_dim");
  model.ffn_hidden_size = config.at("ffn_hidden_size");
  model.norm_eps = config.at("norm_eps");
  model.rope_theta = config.at("rope_theta");
  model.rope_scaling = read_scaling(config.at("rope_scaling"));
  model.qk_norm = config.at("qk_norm");
  model.qkv_bias = config.at("qkv_bias");
  model.tie_embeddings = config.at("tie_embeddings");
  if (const nlohmann::json& moe = config.at("moe"); !moe.is_null()) {
    definition.moe.num_experts = moe.at("num_experts");
    definition.moe.top_k = moe.at("top_k");
    definition.moe.ffn_hidden_size = moe.at("ffn_hidden_size");
    definition.moe.layer_frequency = moe.at("layer_frequency").get<std::vector<int>>();
    definition.moe.pre_softmax = moe.at("pre_softmax");
    definition.moe.shared_ffn_hidden_size = moe.value("shared_ffn_hidden_size", 0);
    definition.moe.shared_gate = moe.value("shared_gate", false);
  }
  return definition;
}

}  // namespace

std::vector<double> values(const SafetensorsEntry& entry) {
  if (entry.dtype == "F32") return converted<float>(entry);
  if (entry.dtype == "F64") return converted<double>(entry);
  if (entry.dtype == "I32") return converted<std::int32_t>(entry);
  require(entry.dtype == "I64", "unexpected type " + entry.dtype);
  return converted<std::int64_t>(entry);
}

Case::Case(const std::string& model, DType compute)
    : folder_(std::filesystem::path(KONCLAVE_SOURCE_DIR) / "tests/oracle/data" / model),
      suffix_(compute == DType::fp64 ? "f64" : "f32") {
  std::ifstream file(folder_ / "oracle.json");
  facts_ = nlohmann::json::parse(file);
  definition_ = read_definition(facts_.at("config"), compute);
}

OptimizerConfig Case::optimizer() const {
  const nlohmann::json& adamw = facts_.at("adamw");
  OptimizerConfig config;
  config.lr = adamw.at("lr");
  config.betas = {adamw.at("betas").at(0), adamw.at("betas").at(1)};
  config.eps = adamw.at("eps");
  config.weight_decay = adamw.at("weight_decay");
  config.decay = "all";
  config.clip_norm = facts_.at("clip_norm");
  config.schedule = "constant";
  return config;
}

HostMicroBatch Case::batch(int step) const {
  const SafetensorsFile file = SafetensorsFile::open(folder_ / "inputs.safetensors");
  const std::vector<double> ids = values(file.at("input_ids"));
  const std::size_t size = ids.size() / static_cast<std::size_t>(steps());
  HostMicroBatch batch;
  const auto first = ids.begin() + static_cast<std::ptrdiff_t>(size) * step;
  batch.tokens.assign(first, first + static_cast<std::ptrdiff_t>(size));
  batch.labels.resize(size);
  const auto length = static_cast<std::size_t>(definition_.model.sequence_length);
  for (std::size_t start = 0; start < size; start += length) {
    shift_labels(std::span(batch.tokens).subspan(start, length),
                 std::span(batch.labels).subspan(start, length));
  }
  return batch;
}

void Case::load(ModelRunner& runner) const {
  const SafetensorsFile file = SafetensorsFile::open(folder_ / "weights.safetensors");
  std::size_t used = 0;
  runner.model().visit_parameters([&](const Parameter& parameter) {
    from_doubles(runner.exec(), values(file.at(parameter.name())), parameter.value());
    ++used;
  });
  require(used == file.entries().size(), "weights.safetensors has tensors that the model has not");
  runner.weights_changed();
}

SafetensorsFile Case::results(const std::string& what) const {
  return SafetensorsFile::open(folder_ / (what + "_" + suffix_ + ".safetensors"));
}

}  // namespace konclave::oracle
