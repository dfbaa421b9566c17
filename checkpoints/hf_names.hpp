#pragma once

#include "model/config.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace konclave {

/// A run of elements of a Hugging Face tensor that is also one of a Konclave tensor.
struct HfSlice {
  std::string name;                 ///< of the Hugging Face tensor
  std::vector<std::int64_t> shape;  ///< of the whole Hugging Face tensor
  std::int64_t first = 0, count = 0;
};

/// A Konclave tensor: its slices one after the other.
struct HfTensor {
  std::string name;  ///< Konclave's
  std::vector<std::int64_t> shape;
  std::vector<HfSlice> slices;
};

/// Whose names and config a model has at Hugging Face. Mistral's are Llama's.
enum class HfFamily { llama, mixtral, qwen2_moe };

/// Llama without MoE layers, Qwen2-MoE with shared experts, and else Mixtral. Whether the family
/// has all that the model needs is for write_hf_config to say.
HfFamily hf_family(const ModelDefinition& definition);

/// How the experts of a layer are named.
enum class HfSpelling {
  hub,   ///< one tensor an expert, in files of the hub: block_sparse_moe.experts.E.{w1,w3,w2} of
         ///< Mixtral, mlp.experts.E.{gate_proj,up_proj,down_proj} of Qwen2-MoE
  fused  ///< all in one, mlp.experts.{gate_up_proj,down_proj}: in memory of transformers 5
};

/// Every tensor of a model and where Hugging Face has it.
std::vector<HfTensor> hf_tensors(const ModelDefinition& definition, HfSpelling spelling);

}  // namespace konclave
