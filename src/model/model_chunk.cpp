#include "model/model_chunk.hpp"

namespace konclave {

namespace {

/// MoE layers before a layer.
int moe_index(const ModelDefinition& definition, int layer) {
  int count = 0;
  for (int before = 0; before < layer; ++before) count += definition.is_moe_layer(before) ? 1 : 0;
  return count;
}

}  // namespace

ModelChunk::ModelChunk(const ModelDefinition& definition, const Groups& groups,
                       const ModelPart& part, const ParameterStorage& storage)
    : type_(definition.compute), tied_(definition.model.tie_embeddings), part_(part) {
  const ModelConfig& model = definition.model;
  const TensorParallel tp(groups);
  const char* const embedding = "model.embed_tokens";
  if (part.embedding) {
    embedding_.emplace(embedding, model.vocab_size, model.hidden_size, type_, model.init_std, tp,
                       storage);
  }
  blocks_.reserve(static_cast<std::size_t>(part.layers));
  for (int layer = part.first_layer; layer < part.first_layer + part.layers; ++layer) {
    blocks_.emplace_back(definition, groups, layer, moe_index(definition, layer), storage);
  }
  if (!part.head) return;
  norm_.emplace("model.norm", model.hidden_size, model.norm_eps, type_, RmsNorm::Region::outside,
                tp, storage);
  if (tied_ && part.embedding) return;
  ParameterSpec spec{.name = tied_ ? std::string(embedding) + ".weight" : "lm_head.weight",
                     .shape = {model.vocab_size, model.hidden_size},
                     .type = type_,
                     .init_std = model.init_std,
                     .only_multiplied = true};
  Placement placement = Placement::part(spec.shape, 0, tp);
  placement.copy = tied_;
  head_.emplace(std::move(spec), std::move(placement), storage);
}

void ModelChunk::prepare(const ExecSpace& exec, Operations& operations) {
  for (Block& block : blocks_) block.prepare(exec, operations);
  if (head_) {
    head_->prepare(exec, operations, 0);
  } else if (part_.head) {
    embedding_->weight().prepare(exec, operations, 0);
  }
}

const Parameter* ModelChunk::head() const {
  if (!part_.head) return nullptr;
  return head_ ? &*head_ : &embedding_->weight();
}

const Parameter* ModelChunk::tied() const {
  if (!tied_) return nullptr;
  return embedding_ ? &embedding_->weight() : head();
}

void ModelChunk::forward(const Context& context, const Rotary& rotary, const MicroBatch& batch,
                         const MoeStep& step, const AnyIn& input, Saved& saved) const {
  saved.blocks.resize(blocks_.size());
  saved.output = input;
  if (embedding_) {
    const AnyView x =
        context.activations.make(type_, batch.rows_outside, embedding_->weight().spec().shape[1]);
    embedding_->forward(context, batch.tokens, x);
    saved.output = x;
  }
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    saved.output = blocks_[layer].forward(context, rotary, batch.sequences, step, saved.output,
                                          saved.blocks[layer]);
  }
  if (norm_) {
    const AnyView y = context.activations.make(type_, batch.rows_outside, saved.output.extent(1));
    norm_->forward(context, saved.output, saved.norm, y);
    saved.output = y;
  }
}

void ModelChunk::backward(const Context& context, const Rotary& rotary, const MicroBatch& batch,
                          const Saved& saved, const AnyView& gradient) const {
  if (norm_) norm_->backward(context, saved.norm, gradient, {}, gradient);
  for (std::size_t layer = blocks_.size(); layer-- > 0;) {
    blocks_[layer].backward(context, rotary, batch.sequences, saved.blocks[layer], gradient);
  }
  if (embedding_) embedding_->backward(context, batch.runs, gradient);
}

}  // namespace konclave
