#include "model/model_chunk.hpp"

#include "ops/elementwise.hpp"

namespace konclave {

namespace {

/// MoE layers before a layer.
int moe_index(const ModelDefinition& definition, int layer) {
  int count = 0;
  for (int before = 0; before < layer; ++before) count += definition.is_moe_layer(before) ? 1 : 0;
  return count;
}

/// The same with other memory for what a group of layers keeps.
Context within(const Context& context, const LayerGroup& group, Arena* again) {
  const bool aside = group.again && again != nullptr;
  return {context.exec,    context.operations, aside ? *again : context.activations,
          context.scratch, context.trace,      context.passing};
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
  groups_ = layer_groups({}, part.layers);
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

void ModelChunk::recompute(const RecomputeConfig& config) {
  groups_ = layer_groups(config, part_.layers);
  for (Block& block : blocks_) block.recompute(config);
}

AnyIn ModelChunk::run(const Context& context, const Rotary& rotary, const MicroBatch& batch,
                      const MoeStep& step, const LayerGroup& group, AnyIn x, Saved& saved,
                      const LayerObserver& observer) const {
  for (int layer = group.first; layer < group.last; ++layer) {
    const auto index = static_cast<std::size_t>(layer);
    context.pass(1 + layer);
    x = blocks_[index].forward(context, rotary, batch.sequences, step, x, saved.blocks[index]);
    if (observer) observer(part_.first_layer + layer, x);
  }
  return x;
}

void ModelChunk::forward(const Context& context, const Rotary& rotary, const MicroBatch& batch,
                         const MoeStep& step, const AnyIn& input, Saved& saved,
                         const Shared& shared) const {
  saved.blocks.resize(blocks_.size());
  saved.output = input;
  context.pass(0);
  if (embedding_) {
    const AnyView x =
        context.activations.make(type_, batch.rows_outside, embedding_->weight().spec().shape[1]);
    embedding_->forward(context, batch.tokens, x);
    saved.output = x;
  }
  saved.step = step;
  saved.inputs.clear();
  for (const LayerGroup& group : groups_) {
    const AnyIn x = saved.output;
    saved.inputs.push_back(x);
    if (!group.again) {
      saved.output = run(context, rotary, batch, step, group, x, saved, shared.observer);
      continue;
    }
    const AnyView y = context.activations.make(type_, x.extent(0), x.extent(1));
    const Context inner = within(context, group, shared.again);
    const ArenaScope scope(inner.activations);
    ops::cast(context.exec, run(inner, rotary, batch, step, group, x, saved, shared.observer), y);
    saved.output = y;
  }
  context.pass(behind_layers());
  if (norm_) {
    const AnyView y = context.activations.make(type_, batch.rows_outside, saved.output.extent(1));
    norm_->forward(context, saved.output, saved.norm, y);
    saved.output = y;
  }
}

void ModelChunk::backward(const Context& context, const Rotary& rotary, const MicroBatch& batch,
                          const Saved& saved, const AnyView& gradient, const Shared& shared) const {
  if (norm_) norm_->backward(context, saved.norm, gradient, {}, gradient);
  context.pass(behind_layers());
  for (std::size_t i = groups_.size(); i-- > 0;) {
    const LayerGroup& group = groups_[i];
    const Context inner = within(context, group, shared.again);
    const ArenaScope scope(inner.activations);
    Saved again;
    if (group.again) {
      MoeStep step = saved.step;
      step.counts = false;
      again.blocks.resize(blocks_.size());
      Context silent = inner;
      silent.passing = nullptr;
      run(silent, rotary, batch, step, group, saved.inputs[i], again, /*observer=*/{});
    }
    const Saved& of = group.again ? again : saved;
    for (int layer = group.last; layer-- > group.first;) {
      const auto index = static_cast<std::size_t>(layer);
      blocks_[index].backward(inner, rotary, batch.sequences, of.blocks[index], gradient);
      context.pass(1 + layer);
    }
  }
  if (embedding_) embedding_->backward(context, batch.runs, gradient);
  context.pass(0);
}

}  // namespace konclave
