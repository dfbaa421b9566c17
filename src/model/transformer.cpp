#include "model/transformer.hpp"

#include <algorithm>

namespace konclave {

Transformer::Transformer(const ModelDefinition& definition, const Groups& groups,
                         const ParameterStorage& storage)
    : definition_(definition),
      embedding_("model.embed_tokens", definition.model.vocab_size, definition.model.hidden_size,
                 definition.compute, definition.model.init_std, storage),
      norm_("model.norm", definition.model.hidden_size, definition.model.norm_eps,
            definition.compute, storage) {
  const ModelConfig& model = definition.model;
  int moe_index = 0;
  blocks_.reserve(static_cast<std::size_t>(model.num_layers));
  for (int layer = 0; layer < model.num_layers; ++layer) {
    blocks_.emplace_back(definition, groups, layer, moe_index, storage);
    if (blocks_.back().is_moe()) ++moe_index;
  }
  if (!model.tie_embeddings) {
    head_.emplace(ParameterSpec{"lm_head.weight",
                                {model.vocab_size, model.hidden_size},
                                definition.compute,
                                model.init_std},
                  storage);
  }
}

int Transformer::num_moe_layers() const {
  return static_cast<int>(
      std::count_if(blocks_.begin(), blocks_.end(), [](const Block& b) { return b.is_moe(); }));
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
  for (Block& block : blocks_) block.prepare(exec, operations);
  if (head_) {
    head_->prepare(exec, operations, 0);
  } else {
    embedding_.weight().prepare(exec, operations, 0);
  }
}

void Transformer::forward(const Context& context, const MicroBatch& batch, const MoeStep& step,
                          Saved& saved) const {
  require(rotary_.has_value(), "forward needs make_tables first");
  const std::int64_t hidden = definition_.model.hidden_size;
  saved.blocks.resize(blocks_.size());
  AnyView x = context.activations.make(definition_.compute, batch.sequences.tokens, hidden);
  embedding_.forward(context, batch.tokens, x);
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    x = blocks_[layer].forward(context, *rotary_, batch.sequences, step, x, saved.blocks[layer]);
  }
  saved.hidden = context.activations.make(x.type(), x.extent(0), hidden);
  norm_.forward(context, x, saved.norm, saved.hidden);
}

void Transformer::backward(const Context& context, const MicroBatch& batch, const Saved& saved,
                           const AnyView& gradient) const {
  norm_.backward(context, saved.norm, gradient, {}, gradient);
  for (std::size_t layer = blocks_.size(); layer-- > 0;) {
    blocks_[layer].backward(context, *rotary_, batch.sequences, saved.blocks[layer], gradient);
  }
  embedding_.backward(context, batch.runs, gradient);
}

std::vector<ParameterSpec> parameter_specs(const ModelDefinition& definition) {
  Transformer described(definition, Groups::alone(), {});
  std::vector<ParameterSpec> specs;
  described.visit_parameters(
      [&](const Parameter& parameter) { specs.push_back(parameter.spec()); });
  return specs;
}

}  // namespace konclave
