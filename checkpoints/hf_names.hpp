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

/// How the experts of a layer are named.
enum class HfSpelling {
  hub,   ///< one tensor an expert, block_sparse_moe.experts.E.{w1,w3,w2}: files of the hub
  fused  ///< all in one, mlp.experts.{gate_up_proj,down_proj}: in memory of transformers 5
};

/// Every tensor of a Mixtral, Llama or Mistral model and where Hugging Face has it.
std::vector<HfTensor> hf_tensors(const ModelDefinition& definition, HfSpelling spelling);

}  // namespace konclave
