#pragma once

#include "train/grad_reducer.hpp"
#include "train/metrics.hpp"
#include "train/model_runner.hpp"
#include "train/optimizer.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace konclave {

/// How large a global batch is.
struct BatchCounts {
  std::int64_t tokens = 0, scored = 0, windows = 0, sequences = 0;
};

/// The numbers of all ranks added up, those of rank 0 first; each rank has equally many. With a
/// number for each micro-batch, the bits don't depend on how many ranks share the micro-batches.
double sum_in_order(const Transport& group, const std::vector<double>& mine);

/// Runs optimizer steps over global batches.
class Trainer {
 public:
  /// `seed` is the key of what is random in a router.
  Trainer(ModelRunner& runner, const OptimizerConfig& config, std::int64_t total_steps,
          const std::string& grad_reduce = "ordered", std::uint64_t seed = 0);

  /// Update number `step` = 1, 2, ... on this rank's micro-batches of one global batch, as many as
  /// every other rank has. The loss is the mean over all scored tokens of the batch, however it is
  /// cut and spread. A loss or gradient norm that is
  /// no number leaves weights and optimizer untouched (StepMetrics::finite is false).
  StepMetrics step(std::int64_t step, const std::vector<HostMicroBatch>& batches);

  /// Where the next step's routers note or find experts; nowhere at first.
  void use_choices(const ExpertChoices& choices) { choices_ = choices; }

  Optimizer& optimizer() { return optimizer_; }
  double learning_rate(std::int64_t step) const;

 private:
  /// Of the global batch that these micro-batches are this rank's part of.
  BatchCounts count(const std::vector<HostMicroBatch>& batches) const;
  MoeStep moe_step(std::int64_t number, const BatchCounts& counts);
  /// What the next step's routers know of this one.
  void remember_routing(const StepMetrics& metrics);

  ModelRunner& runner_;
  OptimizerConfig config_;
  std::int64_t total_steps_;
  std::uint64_t seed_;
  ExpertChoices choices_;
  Arena memory_;
  Optimizer optimizer_;
  GradReducer reducer_;
};

}  // namespace konclave
