#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace konclave {

/// Deck section [batch], in sequences.
struct BatchConfig {
  int global_size = 0;
  int micro_size = 1;
};

/// Deck section [optimizer]: AdamW with decoupled weight decay.
struct OptimizerConfig {
  double lr = 3e-4;
  double min_lr = 0;
  std::array<double, 2> betas = {0.9, 0.95};
  double eps = 1e-8;
  double weight_decay = 0.1;
  std::string decay = "matrices";   ///< what is decayed: "matrices" (rank 2 and 3) or "all"
  std::string moments = "fp32";     ///< type in which moments are kept: "fp32" or "bf16"
  double clip_norm = 1.0;           ///< of all gradients together; 0 does not clip
  std::string schedule = "cosine";  ///< "cosine", "linear", "wsd" or "constant"
  std::int64_t warmup_steps = 0;
  /// Steps over which lr falls to min_lr: after the warm-up for cosine and linear (0: to the end
  /// of the run), at the end of the run for wsd (0: a tenth of the run).
  std::int64_t decay_steps = 0;
};

/// Deck section [fault].
struct FaultConfig {
  /// Steps of a run whose loss or gradient may be no finite number; such a step updates nothing.
  std::int64_t nan_budget = 0;
  /// Seconds that a step may take before the job ends as one that hangs; 0: for ever; kAutoTimeout:
  /// by the time of the steps before.
  double step_timeout = kAutoTimeout;
  static constexpr double kAutoTimeout = -1;
};

}  // namespace konclave
