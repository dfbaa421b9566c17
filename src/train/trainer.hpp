#pragma once

#include "train/grad_reducer.hpp"
#include "train/metrics.hpp"
#include "train/model_runner.hpp"
#include "train/optimizer.hpp"

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace konclave {

/// How large a global batch is.
struct BatchCounts {
  std::int64_t tokens = 0, scored = 0, windows = 0, sequences = 0;
};

/// Tensors of a rank that are not all numbers. The rank with the lowest moment had them first: the
/// others may have got theirs from it.
struct NotFinite {
  static constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();

  std::int64_t moment = kNever;
  std::vector<std::string> names;  ///< "the output of layer 3"
};

/// The numbers of all ranks added up, those of rank 0 first; each rank has equally many. With a
/// number for each micro-batch, the bits don't depend on how many ranks share the micro-batches.
double sum_in_order(const Transport& group, const std::vector<double>& mine);

/// Runs optimizer steps over global batches.
class Trainer {
 public:
  /// Of `parallel`, how gradients are summed and who keeps the optimizer's state; `seed` is the key
  /// of what is random in a router.
  Trainer(ModelRunner& runner, const OptimizerConfig& config, std::int64_t total_steps,
          const ParallelConfig& parallel = {}, std::uint64_t seed = 0);

  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  /// Update number `step` = 1, 2, ... on this rank's micro-batches of one global batch, as many as
  /// every other rank has. The loss is the mean over all scored tokens of the batch, however it is
  /// cut and spread. A loss or gradient norm that is no number leaves weights and optimizer
  /// untouched (StepMetrics::finite is false).
  StepMetrics step(std::int64_t step, const std::vector<HostMicroBatch>& batches);

  /// Where a step that was no number (StepMetrics::finite) has its first values on this rank that
  /// are none: those of parameters, of the output of a layer, of the loss, of gradients before they
  /// are summed over ranks. For that it runs forward and backward of the step just taken once more.
  /// Collective, as a step is.
  NotFinite find_not_finite(std::int64_t step, const std::vector<HostMicroBatch>& batches);

  /// Waits for new values that are still on their way to this rank: before anybody but the next
  /// step or an evaluation looks at the model, and for the bytes of a step to be counted in it.
  void settle() { optimizer_.settle(runner_.exec()); }

  /// Called in each step when gradients are summed, on the ranks that own them (Optimizer::states),
  /// and before they make new weights.
  void observe_gradients(std::function<void()> observer) { on_gradients_ = std::move(observer); }

  /// Where the next step's routers note or find experts; nowhere at first.
  void use_choices(const ExpertChoices& choices) { choices_ = choices; }

  /// For measurements: whether the next steps neither count nor report what routers do. Throws
  /// Error where routers go by it (RoutingMemory::goes_on, MoeConfig::goes_by_running_load).
  void leave_out_statistics(bool leave_out);

  Optimizer& optimizer() { return optimizer_; }
  double learning_rate(std::int64_t step) const;

 private:
  struct Passed {
    std::vector<double> losses;  ///< of each micro-batch
    MoeStep moe;
  };
  Passed forward_and_backward(std::int64_t step, const BatchCounts& counts,
                              const std::vector<HostMicroBatch>& batches);
  std::vector<std::string> bad_values() const;
  NotFinite bad_gradients(int chunk, int place) const;
  /// Has forward and backward tell optimizer and reducer where they are.
  void overlap();
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
  std::function<void()> on_gradients_;
  bool overlaps_;
  bool counts_ = true;  ///< the statistics of routers
  Arena memory_;
  std::vector<GradBucket> buckets_;
  Optimizer optimizer_;
  GradReducer reducer_;
  /// With overlap, by chunk and place (Transformer::visit_places).
  std::map<std::pair<int, int>, std::vector<const Parameter*>> places_;
  std::optional<Operations::Pause> polling_;  ///< with overlap
};

}  // namespace konclave
