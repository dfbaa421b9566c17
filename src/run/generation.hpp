#pragma once

#include "train/trainer.hpp"

#include <cstdint>
#include <functional>
#include <vector>

namespace konclave {

struct GenerationConfig {
  int max_tokens = 200;
  double temperature = 1;  ///< 0 takes the most likely token
  std::uint64_t seed = 1;
  int vocabulary = 0;  ///< only tokens below this one are drawn
};

/// Continues `prompt` (at least one token); returns the new tokens and hands each to `each` as it
/// is made. The model sees at most its last sequence_length tokens. Collective over the runner's
/// groups: all ranks pass the same prompt and get the same tokens.
std::vector<int> generate(
    ModelRunner& runner, const std::vector<int>& prompt, const GenerationConfig& config,
    const std::function<void(int)>& each = [](int) {});

}  // namespace konclave
