#include "model/block.hpp"

#include "base/fault.hpp"
#include "ops/elementwise.hpp"

#include <cmath>

namespace konclave {

namespace {

std::string prefix(int layer) { return "model.layers." + std::to_string(layer); }

/// Projections that write to the residual stream start smaller: std / sqrt(2 layers).
double output_std(const ModelConfig& model) {
  return model.init_std / std::sqrt(2.0 * model.num_layers);
}

SelfAttentionConfig attention_config(const ModelDefinition& definition) {
  const ModelConfig& model = definition.model;
  return {model.hidden_size,  model.num_heads,  model.kv_heads(), model.head_size(),
          definition.compute, model.qk_norm,    model.qkv_bias,   model.norm_eps,
          model.init_std,     output_std(model)};
}

RmsNorm outer_norm(const std::string& name, const ModelDefinition& definition, const Groups& groups,
                   const ParameterStorage& storage) {
  return {name,
          definition.model.hidden_size,
          definition.model.norm_eps,
          definition.compute,
          RmsNorm::Region::outside,
          TensorParallel(groups),
          storage};
}

}  // namespace

Block::Block(const ModelDefinition& definition, const Groups& groups, int layer, int moe_index,
             const ParameterStorage& storage)
    : attention_label_("layer " + std::to_string(layer) + " attention"),
      feed_forward_label_("layer " + std::to_string(layer) +
                          (definition.is_moe_layer(layer) ? " MoE" : " MLP")),
      input_norm_(outer_norm(prefix(layer) + ".input_layernorm", definition, groups, storage)),
      attention_(prefix(layer) + ".self_attn", attention_config(definition), groups, storage),
      post_norm_(
          outer_norm(prefix(layer) + ".post_attention_layernorm", definition, groups, storage)) {
  const ModelConfig& model = definition.model;
  if (definition.is_moe_layer(layer)) {
    moe_.emplace(prefix(layer) + ".moe", moe_index,
                 MoeLayerConfig{definition.moe, model.hidden_size, definition.compute,
                                model.init_std, output_std(model)},
                 groups, storage);
  } else {
    mlp_.emplace(prefix(layer) + ".mlp",
                 MlpConfig{model.hidden_size, model.ffn_hidden_size, definition.compute,
                           model.init_std, output_std(model)},
                 TensorParallel(groups), storage);
  }
}

void Block::prepare(const ExecSpace& exec, Operations& operations) {
  attention_.prepare(exec, operations);
  if (mlp_) mlp_->prepare(exec, operations);
  if (moe_) moe_->prepare(exec, operations);
}

void Block::recompute(const RecomputeConfig& config) {
  attention_.repeat_core(config.repeats("core_attn"));
  norms_again_ = config.repeats("layernorm");
  feed_forward_again_ = config.repeats(moe_ ? "moe" : "mlp");
  if (moe_) moe_->repeat_shared(config.repeats("shared_experts") && !feed_forward_again_);
}

AnyIn Block::normed(const Context& context, const RmsNorm& norm, const RmsNorm::Saved& saved,
                    const AnyIn& kept) const {
  if (!norms_again_) return kept;
  if (fault("recompute.norm_forgotten")) return saved.x;
  const AnyView y = context.scratch.make(saved.x.type(), saved.x.extent(0), saved.x.extent(1));
  norm.again(context, saved, y);
  return y;
}

AnyView Block::forward(const Context& context, const Rotary& rotary, const Sequences& sequences,
                       const MoeStep& step, const AnyIn& x, Saved& saved) const {
  const auto activation = [&] {
    return context.activations.make(x.type(), x.extent(0), x.extent(1));
  };
  // Where the outputs of norms are made again for backward, they are temporaries.
  const ArenaScope scope(context.scratch);
  const auto norm_output = [&] {
    Arena& arena = norms_again_ ? context.scratch : context.activations;
    return arena.make(x.type(), x.extent(0), x.extent(1));
  };
  AnyView middle;
  {
    const TraceSpan span(context.trace, attention_label_, "layer");
    const ArenaScope attention_scope(context.scratch);
    const AnyView normed = norm_output();
    middle = activation();
    input_norm_.forward(context, x, saved.input_norm, normed);
    attention_.forward(context, rotary, sequences, normed, saved.attention, middle);
  }

  const TraceSpan span(context.trace, feed_forward_label_, "layer");
  const AnyView normed_middle = norm_output(), y = activation();
  post_norm_.forward_sum(context, x, middle, saved.post_norm, /*sum=*/middle, normed_middle);
  saved.feed_forward_input = normed_middle;
  saved.step = step;
  const Arena::Mark mark = context.activations.mark();
  if (moe_) {
    moe_->forward(context, step, normed_middle, /*residual=*/middle, saved.moe, y);
  } else {
    mlp_->forward(context, normed_middle, saved.mlp, y);
    ops::add(context.exec, middle, y, y);
  }
  if (feed_forward_again_) context.activations.rewind(mark);
  return y;
}

void Block::backward(const Context& context, const Rotary& rotary, const Sequences& sequences,
                     const Saved& saved, const AnyView& gradient) const {
  const ArenaScope scope(context.scratch);
  const AnyView inner =
      context.scratch.make(gradient.type(), gradient.extent(0), gradient.extent(1));
  {
    const TraceSpan span(context.trace, feed_forward_label_, "layer");
    const ArenaScope again_scope(context.activations), normed_scope(context.scratch);
    const AnyIn x = normed(context, post_norm_, saved.post_norm, saved.feed_forward_input);
    MoeLayer::Saved moe = saved.moe;
    Mlp::Saved mlp = saved.mlp;
    if (moe_) moe_->move_input(moe, x);
    if (mlp_) mlp.x = x;
    if (feed_forward_again_) {
      MoeStep again = saved.step;
      again.counts = false;
      // The output, which nobody needs, goes where the gradient will be.
      if (moe_) moe_->forward(context, again, x, /*residual=*/{}, moe, inner);
      if (mlp_) mlp_->forward(context, x, mlp, inner);
    }
    if (moe_) moe_->backward(context, moe, gradient, inner);
    if (mlp_) mlp_->backward(context, mlp, gradient, inner);
    post_norm_.backward(context, saved.post_norm, inner, /*residual=*/gradient, gradient);
  }
  const TraceSpan span(context.trace, attention_label_, "layer");
  SelfAttention::Saved attention = saved.attention;
  attention.x = normed(context, input_norm_, saved.input_norm, saved.attention.x);
  attention_.backward(context, rotary, sequences, attention, gradient, inner);
  input_norm_.backward(context, saved.input_norm, inner, /*residual=*/gradient, gradient);
}

}  // namespace konclave
