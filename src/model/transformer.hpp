#pragma once

#include "layers/embedding.hpp"
#include "layers/rotary.hpp"
#include "model/batch.hpp"
#include "model/block.hpp"
#include "model/config.hpp"

#include <optional>
#include <vector>

namespace konclave {

/// A decoder: embedding, blocks, final norm, head (its own or the embedding's).
class Transformer {
 public:
  /// What backward needs of one micro-batch in flight.
  struct Saved {
    std::vector<Block::Saved> blocks;
    RmsNorm::Saved norm;
    AnyView hidden;  ///< (T,H), behind the final norm
  };

  /// This rank's part of the model. Without storage the parameters are described only
  /// (visit_parameters works, nothing else).
  Transformer(const ModelDefinition& definition, const Groups& groups,
              const ParameterStorage& storage);

  const ModelDefinition& definition() const { return definition_; }
  int num_moe_layers() const;

  /// Tables of rotary positions; once, before the first forward. `positions` is how many there
  /// are, at least the longest sequence.
  void make_tables(const ExecSpace& exec, Arena& arena, int positions);
  void initialise(const ExecSpace& exec, std::uint64_t seed);
  /// Weights in the forms that products want: before the first step and after each update.
  void prepare(const ExecSpace& exec, Operations& operations);

  /// Up to saved.hidden.
  void forward(const Context& context, const MicroBatch& batch, const MoeStep& step,
               Saved& saved) const;
  /// From the gradient of saved.hidden (T,H), which is used as working memory, to all parameters.
  void backward(const Context& context, const MicroBatch& batch, const Saved& saved,
                const AnyView& gradient) const;

  /// The matrix of the head (V,H).
  const Parameter& head() const { return head_ ? *head_ : embedding_.weight(); }

  /// All parameters, in one fixed order.
  template <typename Visitor> void visit_parameters(Visitor&& visit) {
    embedding_.visit_parameters(visit);
    for (Block& block : blocks_) block.visit_parameters(visit);
    norm_.visit_parameters(visit);
    if (head_) visit(*head_);
  }

 private:
  ModelDefinition definition_;
  Embedding embedding_;
  std::vector<Block> blocks_;
  RmsNorm norm_;
  std::optional<Parameter> head_;
  std::optional<Rotary> rotary_;
};

/// Names, shapes and types of a model's parameters, in their fixed order.
std::vector<ParameterSpec> parameter_specs(const ModelDefinition& definition);

}  // namespace konclave
