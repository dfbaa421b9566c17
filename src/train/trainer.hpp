#pragma once

#include "model/transformer.hpp"
#include "train/grad_reducer.hpp"
#include "train/metrics.hpp"
#include "train/optimizer.hpp"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace konclave {

/// Tokens and labels of one micro-batch on the host, B sequences one after the other.
struct HostMicroBatch {
  std::vector<int> tokens, labels;
};

/// How large a global batch is.
struct BatchCounts {
  std::int64_t tokens = 0, scored = 0, windows = 0;
};

/// Sums of an evaluation.
struct Evaluation {
  double loss_sum = 0;      ///< nats
  std::int64_t scored = 0;  ///< tokens

  double loss() const { return scored > 0 ? loss_sum / static_cast<double>(scored) : 0; }
};

/// The numbers of all ranks added up, those of rank 0 first; each rank has equally many. With a
/// number for each micro-batch, the bits don't depend on how many ranks share the micro-batches.
double sum_in_order(const Transport& group, const std::vector<double>& mine);

/// Memory and operations behind this rank's part of a model: what training, evaluation and
/// generation share. Owns the model; reads and writes no files.
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

  /// Cross entropy of a micro-batch, forward only; dropless, nothing random. `sequence_length` may
  /// be shorter than the model's. With `logits` they are copied there, row-major (T,V).
  Evaluation evaluate(const HostMicroBatch& batch, int sequence_length,
                      std::vector<double>* logits = nullptr);
  /// Logits of the token that follows `tokens`, at least one and at most sequence_length of them.
  std::vector<double> next_logits(const std::vector<int>& tokens);
  /// Forward and backward of a micro-batch: adds to the gradients, to the statistics and returns
  /// the sum of the losses. Gradients are those of
  ///   loss_scale * sum of losses + balance losses scaled by `balance`.
  Evaluation accumulate(const HostMicroBatch& batch, double loss_scale, const BalanceScale& balance,
                        const MoeStatistics& statistics);
  /// Statistics for one step, zeroed.
  MoeStatistics fresh_statistics();

 private:
  /// Forward of a micro-batch in fresh activations, without balance losses.
  MicroBatch infer(const HostMicroBatch& batch, int sequence_length, Transformer::Saved& saved);
  std::vector<double> logits_of(const AnyIn& hidden);
  Context context() { return {exec_, operations_, activations_, scratch_}; }
  double sum_losses(const View1<double>& losses);

  Groups groups_;
  ExecSpace exec_;
  MemoryAccount account_;
  Arena weights_, gradients_, activations_, scratch_, statistics_;
  Operations operations_;
  std::unique_ptr<Transformer> model_;
};

/// Runs optimizer steps over global batches.
class Trainer {
 public:
  Trainer(ModelRunner& runner, const OptimizerConfig& config, std::int64_t total_steps,
          const std::string& grad_reduce = "ordered");

  /// Update number `step` = 1, 2, ... on this rank's micro-batches of one global batch, as many as
  /// every other rank has. The loss is the mean over all scored tokens of the batch, however it is
  /// cut and spread. A loss or gradient norm that is
  /// no number leaves weights and optimizer untouched (StepMetrics::finite is false).
  StepMetrics step(std::int64_t step, const std::vector<HostMicroBatch>& batches);

  Optimizer& optimizer() { return optimizer_; }
  double learning_rate(std::int64_t step) const;

 private:
  /// Of the global batch that these micro-batches are this rank's part of.
  BatchCounts count(const std::vector<HostMicroBatch>& batches) const;

  ModelRunner& runner_;
  OptimizerConfig config_;
  std::int64_t total_steps_;
  Arena memory_;
  Optimizer optimizer_;
  GradReducer reducer_;
};

}  // namespace konclave
