#pragma once

#include "model/loss.hpp"
#include "model/transformer.hpp"
#include "parallel/schedule.hpp"
#include "train/boundary.hpp"

#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace konclave {

/// What the micro-batches of a training step have in common.
struct StepPlan {
  double loss_scale = 1;  ///< of the sum of losses: 1 / scored tokens of the global batch
  MoeStep moe;            ///< but what each micro-batch has of its own
};

/// Takes micro-batches through the stages of a pipeline (groups.pp), of which this rank is one,
/// with one stage as a special case. Boundary tensors go by point-to-point messages. In training
/// the next input and the next gradient are received while the stage works, a send is not waited
/// for until its memory is wanted, and both get on behind each product and each attention. Keeps
/// its memory from step to step.
class Pipeline {
 public:
  /// `model` has to outlive it.
  Pipeline(const Transformer& model, const Groups& groups, MemoryAccount& account);

  /// Called in the forward of training steps with each layer that has been passed.
  using LayerObserver = ModelChunk::LayerObserver;
  void observe_layers(LayerObserver observer) { observer_ = std::move(observer); }

  /// Called with each place of a chunk (ModelChunk::visit_places): before forward passes it, and
  /// when the last backward of a step has passed it, so that its gradients are complete.
  struct Passing {
    std::function<void(int chunk, int place)> forward, last_backward;
  };
  void observe_places(Passing passing) { passing_ = std::move(passing); }

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
  Inference infer(Context context, const HostMicroBatch& host, int sequence_length,
                  const MoeStep& moe) const;

 private:
  /// A micro-batch between its forward and its backward.
  struct Slot {
    explicit Slot(MemoryAccount& account);

    Arena memory;
    MicroBatch batch;
    ModelChunk::Saved saved;
    std::unique_ptr<Boundary> input;  ///< of the stage before
    std::optional<Request> sending;   ///< the output, to the next stage
  };
  struct Step;

  /// Whether the tests want a step of this rank spoiled.
  bool is_spoiled(const Step& step) const;
  PipelineShape shape_of(std::size_t micro_batches) const;
  bool is_first(int chunk) const { return chunk == 0 && pp_->rank() == 0; }
  bool is_last(int chunk) const {
    return chunk == model_.num_chunks() - 1 && pp_->rank() == pp_->size() - 1;
  }
  int next() const { return (pp_->rank() + 1) % pp_->size(); }
  int previous() const { return (pp_->rank() + pp_->size() - 1) % pp_->size(); }

  void forward(Step& step, const PipelineWork& work);
  void backward(Step& step, const PipelineWork& work);
  /// The losses of a micro-batch, and the gradient that backward begins with.
  void make_loss(Step& step, int micro_batch, const Slot& slot);
  /// What comes for these of a schedule's pieces of work.
  Arrivals arrivals(Step& step, const std::vector<PipelineWork>& schedule, PipelineWork::Kind kind);
  /// Lets all messages get on that are under way.
  void poll(Step& step);
  AnyView make_boundary(Arena& memory, const HostMicroBatch& batch) const;

  std::unique_ptr<Slot> take_slot();

  const Transformer& model_;
  Groups groups_;
  std::shared_ptr<const Transport> pp_;
  MemoryAccount& account_;
  Trace* trace_ = nullptr;
  LayerObserver observer_;
  std::unique_ptr<Arena> again_;  ///< for layers that are done again
  Passing passing_;
  std::vector<std::unique_ptr<Slot>> free_slots_;  ///< the last one is taken first
  BoundaryPool inputs_, gradients_;
};

}  // namespace konclave
