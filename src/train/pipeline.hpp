#pragma once

#include "model/loss.hpp"
#include "model/transformer.hpp"
#include "parallel/schedule.hpp"

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace konclave {

/// What the micro-batches of a training step have in common.
struct StepPlan {
  double loss_scale = 1;  ///< of the sum of losses: 1 / scored tokens of the global batch
  MoeStep moe;            ///< but its windows, which are each micro-batch's own
};

/// Takes micro-batches through the stages of a pipeline (groups.pp), of which this rank is one,
/// with one stage as a special case. Boundary tensors go by point-to-point messages that are not
/// waited for until their memory is wanted. Keeps its memory from step to step.
class Pipeline {
 public:
  /// `model` has to outlive it.
  Pipeline(const Transformer& model, const Groups& groups, MemoryAccount& account);

  /// Called in training steps with the number of each layer and its output (rows outside, H), when
  /// its chunk has passed it.
  using LayerObserver = std::function<void(int layer, const AnyIn& output)>;
  void observe_layers(LayerObserver observer) { observer_ = std::move(observer); }

  /// Where the pieces of work of training steps are drawn from now on; null for nowhere.
  void trace_to(Trace* trace) { trace_ = trace; }

  /// Forward and backward of all micro-batches in the order of the schedule: adds to the gradients
  /// and the statistics. Gradients are those of  loss_scale * sum of losses + balance losses. Gives
  /// back the sum of the losses of each micro-batch over this rank's rows; zeros where the head is
  /// not.
  std::vector<double> train(const ExecSpace& exec, Operations& operations, Arena& scratch,
                            const std::vector<HostMicroBatch>& batches, const StepPlan& plan);

  /// Memory for activations that is idle between two steps: rewound, for whoever asked last.
  Arena& idle_memory();

  /// Forward only, without balance losses: through all of this rank's chunks.
  /// The result is that of the last of them, in its inputs' order: where the head is, what goes
  /// into it.
  struct Inference {
    MicroBatch batch;
    AnyIn output;  ///< (rows outside, H)
  };
  Inference infer(const Context& context, const HostMicroBatch& host, int sequence_length,
                  const MoeStep& moe) const;

 private:
  /// A micro-batch between its forward and its backward.
  struct Slot {
    explicit Slot(MemoryAccount& account);

    Arena memory;
    MicroBatch batch;
    ModelChunk::Saved saved;
    AnyIn input;
    std::optional<Request> sending;  ///< the output, to the next stage
  };
  /// A gradient on its way back through a stage.
  struct Gradient {
    explicit Gradient(MemoryAccount& account);

    Arena memory;
    AnyView view;
    std::optional<Request> sending;  ///< to the stage before
  };
  struct Step;

  PipelineShape shape_of(std::size_t micro_batches) const;
  bool is_first(int chunk) const { return chunk == 0 && pp_->rank() == 0; }
  bool is_last(int chunk) const {
    return chunk == model_.num_chunks() - 1 && pp_->rank() == pp_->size() - 1;
  }
  int next() const { return (pp_->rank() + 1) % pp_->size(); }
  int previous() const { return (pp_->rank() + pp_->size() - 1) % pp_->size(); }

  void forward(Step& step, const PipelineWork& work);
  void backward(Step& step, const PipelineWork& work);
  void show_layers(int chunk, const ModelChunk::Saved& saved) const;
  /// The losses of a micro-batch, and the gradient that backward begins with.
  void make_loss(Step& step, int micro_batch, const Slot& slot);
  AnyView make_boundary(Arena& memory, const MicroBatch& batch) const;

  std::unique_ptr<Slot> take_slot();
  /// At most `most` exist; then the longest sent one is waited for.
  std::unique_ptr<Gradient> take_gradient(const ExecSpace& exec, int most);

  const Transformer& model_;
  Groups groups_;
  std::shared_ptr<const Transport> pp_;
  MemoryAccount& account_;
  Trace* trace_ = nullptr;
  LayerObserver observer_;
  std::vector<std::unique_ptr<Slot>> free_slots_;         ///< the last one is taken first
  std::deque<std::unique_ptr<Gradient>> free_gradients_;  ///< longest free first
  int gradients_ = 0;                                     ///< made so far
};

}  // namespace konclave
