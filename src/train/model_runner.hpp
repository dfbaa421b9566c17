#pragma once

#include "model/transformer.hpp"
#include "moe/routing_memory.hpp"
#include "parallel/groups.hpp"
#include "train/pipeline.hpp"

#include <memory>
#include <utility>
#include <vector>

namespace konclave {

/// Sums of an evaluation.
struct Evaluation {
  double loss_sum = 0;      ///< nats
  std::int64_t scored = 0;  ///< tokens

  double loss() const { return scored > 0 ? loss_sum / static_cast<double>(scored) : 0; }
};

/// Memory and operations behind this rank's part of a model: what training, evaluation and
/// generation share. Owns the model; reads and writes no files. Whatever works on a micro-batch is
/// collective over the ranks that share it, and over those that share its experts.
class ModelRunner {
 public:
  /// `trainable` decides whether there is memory for gradients. Weights are uninitialised until
  /// they are initialised or loaded; then call weights_changed().
  ModelRunner(const ModelDefinition& definition, const Groups& groups, bool trainable,
              OpTable table, const BackendConfig& backends);

  const Groups& groups() const { return groups_; }
  Transformer& model() { return *model_; }
  const ExecSpace& exec() const { return exec_; }
  Operations& operations() { return operations_; }
  const MemoryAccount& memory() const { return account_; }
  MemoryAccount& memory() { return account_; }
  Arena& scratch() { return scratch_; }

  void weights_changed();

  /// Where training steps are drawn; null, as at first, for nowhere.
  void trace_to(std::shared_ptr<Trace> trace);
  Trace* trace() const { return trace_.get(); }
  /// Pipeline::observe_layers.
  void observe_layers(Pipeline::LayerObserver observer) {
    pipeline_.observe_layers(std::move(observer));
  }
  /// Pipeline::observe_places.
  void observe_places(Pipeline::Passing passing) { pipeline_.observe_places(std::move(passing)); }

  /// Cross entropy of a micro-batch, forward only; dropless, nothing random. `sequence_length` may
  /// be shorter than the model's. With `logits` those of the whole micro-batch are copied there,
  /// row-major (B S, V), where holds_logits() is true.
  Evaluation evaluate(const HostMicroBatch& batch, int sequence_length,
                      std::vector<double>* logits = nullptr);
  /// Whether this is the one of the ranks that share a micro-batch that hands out its logits.
  bool holds_logits() const;
  /// Logits of the token that follows `tokens`, at least one and at most sequence_length of them;
  /// on every rank.
  std::vector<double> next_logits(const std::vector<int>& tokens);
  /// Pipeline::train; with each sum of losses added up over all rows of the micro-batch, the same
  /// on all ranks that share it.
  std::vector<double> train(const std::vector<HostMicroBatch>& batches, const StepPlan& plan);
  /// What MoE layers get of a step, but seed and what `train` adds; with statistics of 0.
  MoeStep moe_step(bool training, const BalanceScale& scale = {});
  RoutingMemory& routing_memory() { return routing_memory_; }

 private:
  Pipeline::Inference infer(Arena& activations, const HostMicroBatch& batch, int sequence_length);
  /// Of rows inside, over the whole vocabulary (rows, V) on the host.
  std::vector<double> logits_of(const AnyIn& inside);
  /// Logits of all rows of a micro-batch in the order of sequences.
  std::vector<double> all_logits(const Pipeline::Inference& inference);
  /// For one step, zeroed.
  MoeStatistics fresh_statistics();
  /// For one step; not zeroed.
  RunningCounts running_counts(std::size_t micro_batches);
  Context context(Arena& activations) { return {exec_, operations_, activations, scratch_}; }
  /// Losses that the ranks of cp have of the same micro-batches, and those of the last stage alone.
  void share_losses(std::vector<double>& losses) const;

  Groups groups_;
  std::shared_ptr<Trace> trace_;
  ExecSpace exec_;
  MemoryAccount account_;
  Arena weights_, gradients_, scratch_, statistics_;
  Operations operations_;
  std::unique_ptr<Transformer> model_;
  Pipeline pipeline_;
  RoutingMemory routing_memory_;
};

}  // namespace konclave
