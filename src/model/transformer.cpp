#include "model/transformer.hpp"

namespace konclave {

Transformer::Transformer(const ModelDefinition& definition, const Groups& groups,
                         const ParameterStorage& storage)
    : definition_(definition), has_other_stages_(groups.pp->size() > 1) {
  const PipelineLayout layout = make_pipeline_layout(groups.parallel, definition.model.num_layers);
  require(layout.stages() == groups.pp->size(), "the layout is of another number of stages");
  chunks_.reserve(static_cast<std::size_t>(layout.chunks()));
  for (int chunk = 0; chunk < layout.chunks(); ++chunk) {
    chunks_.emplace_back(definition, groups, layout.part(groups.pp->rank(), chunk), storage);
  }
}

void Transformer::make_tables(const ExecSpace& exec, Arena& arena, int positions) {
  const ModelConfig& model = definition_.model;
  rotary_.emplace(exec, rotary_frequencies(model.head_size(), model.rope_theta, model.rope_scaling),
                  positions, definition_.compute, arena);
}

void Transformer::initialise(const ExecSpace& exec, std::uint64_t seed) {
  visit_parameters([&](Parameter& parameter) { parameter.initialise(exec, seed); });
}

void Transformer::prepare(const ExecSpace& exec, Operations& operations) {
  for (ModelChunk& chunk : chunks_) chunk.prepare(exec, operations);
}

void Transformer::forward(const Context& context, int chunk, const MicroBatch& batch,
                          const MoeStep& step, const AnyIn& input, ModelChunk::Saved& saved,
                          const ModelChunk::Shared& shared) const {
  require(rotary_.has_value(), "forward needs make_tables first");
  this->chunk(chunk).forward(context, *rotary_, batch, step, input, saved, shared);
}

void Transformer::backward(const Context& context, int chunk, const MicroBatch& batch,
                           const ModelChunk::Saved& saved, const AnyView& gradient,
                           const ModelChunk::Shared& shared) const {
  this->chunk(chunk).backward(context, *rotary_, batch, saved, gradient, shared);
}

const Parameter* Transformer::tied_copy() const {
  if (!has_other_stages_) return nullptr;
  const Parameter* const first = chunks_.front().tied();
  return first != nullptr ? first : chunks_.back().tied();
}

MicroBatchForm Transformer::batch_form(int sequence_length, int window) const {
  MicroBatchForm form{sequence_length, window, 0, 0};
  if (const Embedding* const embedding = chunks_.front().embedding()) {
    const Shard& part = embedding->weight().shard();
    form.first_token = static_cast<int>(part.offset[0]);
    form.vocabulary = static_cast<int>(part.extent[0]);
  }
  return form;
}

std::vector<ParameterSpec> parameter_specs(const ModelDefinition& definition) {
  Transformer described(definition, Groups::alone(), {});
  std::vector<ParameterSpec> specs;
  described.visit_parameters(
      [&](const Parameter& parameter) { specs.push_back(parameter.spec()); });
  return specs;
}

}  // namespace konclave
