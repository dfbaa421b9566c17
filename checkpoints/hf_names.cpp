#include "checkpoints/hf_names.hpp"

#include "base/error.hpp"
#include "model/transformer.hpp"

#include <string_view>
#include <utility>

namespace konclave {

namespace {

using Shape = std::vector<std::int64_t>;

std::int64_t size_of_shape(const Shape& shape) {
  std::int64_t size = 1;
  for (const std::int64_t extent : shape) size *= extent;
  return size;
}

HfSlice whole(std::string name, const Shape& shape) {
  return {std::move(name), shape, 0, size_of_shape(shape)};
}

/// A tensor that both sides have alike, but for the name.
HfTensor alike(const std::string& name, const std::string& hf_name, const Shape& shape) {
  return {name, shape, {whole(hf_name, shape)}};
}

/// (E,Out,In) from a tensor (Out,In) of each expert.
HfTensor from_experts(const std::string& name, const std::string& prefix, const std::string& matrix,
                      const Shape& shape) {
  HfTensor tensor{name, shape, {}};
  for (std::int64_t expert = 0; expert < shape[0]; ++expert) {
    std::string part = prefix;
    part.append(std::to_string(expert)).append(".").append(matrix).append(".weight");
    tensor.slices.push_back(whole(part, {shape[1], shape[2]}));
  }
  return tensor;
}

/// (E,F,H) from gate and up in one tensor (E,2F,H): of each expert the first or the second half.
HfTensor from_halves(const std::string& name, const std::string& fused, int half,
                     const Shape& shape) {
  HfTensor tensor{name, shape, {}};
  const std::int64_t size = shape[1] * shape[2];
  for (std::int64_t expert = 0; expert < shape[0]; ++expert) {
    tensor.slices.push_back(
        {fused, {shape[0], 2 * shape[1], shape[2]}, (2 * expert + half) * size, size});
  }
  return tensor;
}

/// A layer's router, experts or shared experts. `block` is the name up to "moe." and `part` what
/// follows it.
HfTensor moe_tensor(const ParameterSpec& spec, const std::string& block, const std::string& part,
                    HfFamily family, HfSpelling spelling) {
  constexpr std::string_view kShared = "shared_experts.";
  const bool fused = spelling == HfSpelling::fused;
  const bool mixtral = family == HfFamily::mixtral && !fused;
  const std::string layer = block + (mixtral ? "block_sparse_moe." : "mlp.");
  if (part == "router.weight") return alike(spec.name, layer + "gate.weight", spec.shape);
  if (part == "shared_experts.gate.weight") {
    return alike(spec.name, layer + "shared_expert_gate.weight", spec.shape);
  }
  if (part.starts_with(kShared)) {
    return alike(spec.name, layer + "shared_expert." + part.substr(kShared.size()), spec.shape);
  }
  const std::string experts = layer + "experts.";
  if (part == "experts.gate_proj.weight") {
    return fused ? from_halves(spec.name, experts + "gate_up_proj", 0, spec.shape)
                 : from_experts(spec.name, experts, mixtral ? "w1" : "gate_proj", spec.shape);
  }
  if (part == "experts.up_proj.weight") {
    return fused ? from_halves(spec.name, experts + "gate_up_proj", 1, spec.shape)
                 : from_experts(spec.name, experts, mixtral ? "w3" : "up_proj", spec.shape);
  }
  require(part == "experts.down_proj.weight", "no Hugging Face name for " + spec.name);
  return fused ? alike(spec.name, experts + "down_proj", spec.shape)
               : from_experts(spec.name, experts, mixtral ? "w2" : "down_proj", spec.shape);
}

}  // namespace

HfFamily hf_family(const ModelDefinition& definition) {
  if (definition.num_moe_layers() == 0) return HfFamily::llama;
  return definition.moe.shared_ffn_hidden_size > 0 ? HfFamily::qwen2_moe : HfFamily::mixtral;
}

std::vector<HfTensor> hf_tensors(const ModelDefinition& definition, HfSpelling spelling) {
  constexpr std::string_view kMoe = ".moe.";
  const HfFamily family = hf_family(definition);
  std::vector<HfTensor> tensors;
  for (const ParameterSpec& spec : parameter_specs(definition)) {
    const std::size_t place = spec.name.find(kMoe);
    tensors.push_back(place == std::string::npos
                          ? alike(spec.name, spec.name, spec.shape)
                          : moe_tensor(spec, spec.name.substr(0, place + 1),
                                       spec.name.substr(place + kMoe.size()), family, spelling));
  }
  return tensors;
}

}  // namespace konclave
