#pragma once

#include <string>

namespace konclave {

/// How rotary positions are stretched beyond the length a model was trained at; names and
/// formulas are those of Hugging Face's `rope_scaling`.
struct RopeScaling {
  std::string type = "none";                    ///< "none", "linear", "llama3" or "yarn"
  double factor = 1;                            ///< all: new length / old length
  double original_max_position_embeddings = 0;  ///< llama3, yarn: the old length
  double low_freq_factor = 1;                   ///< llama3
  double high_freq_factor = 4;                  ///< llama3
  double beta_fast = 32;                        ///< yarn
  double beta_slow = 1;                         ///< yarn
  double attention_factor = 0;                  ///< yarn; 0 takes 0.1 ln(factor) + 1
};

}  // namespace konclave
