#pragma once

#include "layers/embedding.hpp"
#include "layers/rotary.hpp"
#include "model/batch.hpp"
#include "model/block.hpp"
#include "model/config.hpp"
#include "parallel/pipeline_layout.hpp"

#include <functional>
#include <optional>
#include <vector>

namespace konclave {

/// A part of a decoder, as a pipeline stage has one or several: some layers, in front of the first
/// the embedding, behind the last the final norm and the head.
class ModelChunk {
 public:
  /// What backward needs of one micro-batch in flight.
  struct Saved {
    std::vector<Block::Saved> blocks;
    std::vector<AnyIn> inputs;  ///< of each group of layers
    MoeStep step;
    RmsNorm::Saved norm;
    AnyIn output;  ///< (rows outside, H): of the last layer, or behind the final norm
  };

  /// Called with the number of a layer and its output (rows outside, H).
  using LayerObserver = std::function<void(int layer, const AnyIn& output)>;

  /// What all micro-batches in flight share.
  struct Shared {
    /// Where layers that are done again are, in forward and in backward: one at a time, so that a
    /// micro-batch in flight keeps no room for them. Without it they are with the activations.
    Arena* again = nullptr;
    LayerObserver observer = nullptr;  ///< of forward, if anybody is
  };

  ModelChunk(const ModelDefinition& definition, const Groups& groups, const ModelPart& part,
             const ParameterStorage& storage);

  const ModelPart& part() const { return part_; }

  /// What is done again for backward; nothing until then.
  void recompute(const RecomputeConfig& config);

  /// Weights in the forms that products want: before the first step and after each update.
  void prepare(const ExecSpace& exec, Operations& operations);

  /// Up to saved.output. `input` is the output of the part before, (rows outside, H), which has to
  /// live until backward; none where the embedding is.
  void forward(const Context& context, const Rotary& rotary, const MicroBatch& batch,
               const MoeStep& step, const AnyIn& input, Saved& saved, const Shared& shared) const;
  /// Replaces the gradient of saved.output by that of the input, in place.
  void backward(const Context& context, const Rotary& rotary, const MicroBatch& batch,
                const Saved& saved, const AnyView& gradient, const Shared& shared) const;

  /// The matrix of the head (V,H), its own or the embedding's; null where the head is not.
  const Parameter* head() const;
  const Embedding* embedding() const { return embedding_ ? &*embedding_ : nullptr; }
  /// Where the embedding of a tied model or its copy is.
  const Parameter* tied() const;

  /// All parameters, in one fixed order.
  template <typename Visitor> void visit_parameters(Visitor&& visit) {
    visit_places([&](int, Parameter& parameter) { visit(parameter); });
  }
  /// Each parameter with its place: 0 for the embedding, 1 + i for layer i of this chunk, and one
  /// behind the last layer for norm and head.
  template <typename Visitor> void visit_places(Visitor&& visit) {
    int place = 0;
    const auto here = [&](Parameter& parameter) { visit(place, parameter); };
    if (embedding_) embedding_->visit_parameters(here);
    for (Block& block : blocks_) {
      ++place;
      block.visit_parameters(here);
    }
    ++place;
    if (norm_) norm_->visit_parameters(here);
    if (head_) here(*head_);
  }

 private:
  int behind_layers() const { return static_cast<int>(blocks_.size()) + 1; }
  /// The layers of a group; gives back the output of the last.
  AnyIn run(const Context& context, const Rotary& rotary, const MicroBatch& batch,
            const MoeStep& step, const LayerGroup& group, AnyIn x, Saved& saved,
            const LayerObserver& observer) const;

  DType type_;
  bool tied_;
  ModelPart part_;
  std::optional<Embedding> embedding_;
  std::vector<Block> blocks_;
  std::vector<LayerGroup> groups_;
  std::optional<RmsNorm> norm_;
  std::optional<Parameter> head_;  ///< none where the embedding is and serves as head
};

}  // namespace konclave
