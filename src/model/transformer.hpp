#pragma once

#include "model/model_chunk.hpp"

#include <optional>
#include <vector>

namespace konclave {

/// A rank's part of a decoder: the chunks of its pipeline stage, one after the other on the way of
/// a micro-batch, with other stages' in between. On one stage it is the whole decoder, in one
/// chunk.
class Transformer {
 public:
  /// Without storage the parameters are described only (visit_parameters works, nothing else).
  Transformer(const ModelDefinition& definition, const Groups& groups,
              const ParameterStorage& storage);

  const ModelDefinition& definition() const { return definition_; }
  int num_chunks() const { return static_cast<int>(chunks_.size()); }
  const ModelChunk& chunk(int index) const { return chunks_[static_cast<std::size_t>(index)]; }

  /// Tables of rotary positions; once, before the first forward. `positions` is how many there
  /// are, at least the longest sequence.
  void make_tables(const ExecSpace& exec, Arena& arena, int positions);
  /// What is done again for backward; nothing until then.
  void recompute(const RecomputeConfig& config) {
    for (ModelChunk& chunk : chunks_) chunk.recompute(config);
  }
  void initialise(const ExecSpace& exec, std::uint64_t seed);
  /// Weights in the forms that products want: before the first step and after each update.
  void prepare(const ExecSpace& exec, Operations& operations);

  /// ModelChunk::forward and backward of one of the chunks.
  void forward(const Context& context, int chunk, const MicroBatch& batch, const MoeStep& step,
               const AnyIn& input, ModelChunk::Saved& saved,
               const ModelChunk::Shared& shared) const;
  void backward(const Context& context, int chunk, const MicroBatch& batch,
                const ModelChunk::Saved& saved, const AnyView& gradient,
                const ModelChunk::Shared& shared) const;

  /// The matrix of the head (V,H); null on a stage that has none.
  const Parameter* head() const { return chunks_.back().head(); }
  /// On the first and the last stage of a tied model with several stages, the matrix that both
  /// have; else null.
  const Parameter* tied_copy() const;
  /// This rank's part of the vocabulary, as make_micro_batch wants it; none without embedding.
  MicroBatchForm batch_form(int sequence_length, int window) const;

  /// visit(chunk, place, parameter) for each parameter, in their order; see
  /// ModelChunk::visit_places.
  template <typename Visitor> void visit_places(Visitor&& visit) {
    for (int chunk = 0; chunk < num_chunks(); ++chunk) {
      chunks_[static_cast<std::size_t>(chunk)].visit_places(
          [&](int place, Parameter& parameter) { visit(chunk, place, parameter); });
    }
  }
  /// All parameters, in one fixed order.
  template <typename Visitor> void visit_parameters(Visitor&& visit) {
    for (ModelChunk& chunk : chunks_) chunk.visit_parameters(visit);
  }

 private:
  ModelDefinition definition_;
  bool has_other_stages_;
  std::vector<ModelChunk> chunks_;
  std::optional<Rotary> rotary_;
};

/// Names, shapes and types of a whole model's parameters, in their fixed order.
std::vector<ParameterSpec> parameter_specs(const ModelDefinition& definition);

}  // namespace konclave
