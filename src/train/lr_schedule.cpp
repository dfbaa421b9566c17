#include "train/lr_schedule.hpp"

#include "base/error.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace konclave {

double learning_rate(const OptimizerConfig& config, std::int64_t step, std::int64_t total_steps) {
  if (step <= config.warmup_steps) {
    return config.lr * static_cast<double>(step) / static_cast<double>(config.warmup_steps);
  }
  if (config.schedule == "constant") return config.lr;
  const bool at_end = config.schedule == "wsd";
  const std::int64_t rest = total_steps - config.warmup_steps;
  const std::int64_t usual = at_end ? total_steps / 10 : rest;
  const std::int64_t length =
      std::max<std::int64_t>(1, config.decay_steps > 0 ? config.decay_steps : usual);
  const std::int64_t start =
      at_end ? std::max(config.warmup_steps, total_steps - length) : config.warmup_steps;
  const double progress =
      std::clamp(static_cast<double>(step - start) / static_cast<double>(length), 0.0, 1.0);
  const double span = config.lr - config.min_lr;
  if (config.schedule == "cosine") {
    return config.min_lr + span * 0.5 * (1 + std::cos(std::numbers::pi * progress));
  }
  require(config.schedule == "linear" || at_end, "unknown schedule " + config.schedule);
  return config.min_lr + span * (1 - progress);
}

}  // namespace konclave
