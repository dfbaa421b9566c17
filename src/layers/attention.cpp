#include "layers/attention.hpp"

#include <cmath>

namespace konclave {

namespace {

AttentionRows rows_of(const Sequences& sequences) {
  return {sequences.offsets, sequences.offsets, sequences.positions, sequences.positions};
}

LinearConfig projection(const SelfAttentionConfig& config, int heads) {
  return {config.hidden, heads * config.head_dim, config.type, config.qkv_bias, config.init_std};
}

}  // namespace

SelfAttention::SelfAttention(const std::string& name, const SelfAttentionConfig& config,
                             const ParameterStorage& storage)
    : config_(config),
      q_(name + ".q_proj", projection(config, config.heads), storage),
      k_(name + ".k_proj", projection(config, config.kv_heads), storage),
      v_(name + ".v_proj", projection(config, config.kv_heads), storage),
      o_(name + ".o_proj",
         {config.heads * config.head_dim, config.hidden, config.type, false,
          config.output_init_std},
         storage) {
  if (config.qk_norm) {
    q_norm_.emplace(name + ".q_norm", config.head_dim, config.norm_eps, config.type, storage);
    k_norm_.emplace(name + ".k_norm", config.head_dim, config.norm_eps, config.type, storage);
  }
}

AttentionShape SelfAttention::shape() const {
  return {config_.heads,
          config_.kv_heads,
          config_.head_dim,
          config_.head_dim,
          1 / std::sqrt(static_cast<double>(config_.head_dim)),
          config_.type};
}

void SelfAttention::prepare(const ExecSpace& exec, Operations& operations) {
  for (Linear* projection : {&q_, &k_, &v_, &o_}) projection->prepare(exec, operations);
  operations.choose(shape());
}

AnyView SelfAttention::normalised(const Context& context, const std::optional<RmsNorm>& norm,
                                  int heads, const AnyView& raw, RmsNorm::Saved& saved) const {
  if (!norm) return raw;
  const std::int64_t rows = raw.extent(0) * heads;
  const AnyView y = context.activations.make(raw.type(), raw.extent(0), raw.extent(1));
  norm->forward(context, raw.reshape(rows, config_.head_dim), saved,
                y.reshape(rows, config_.head_dim));
  return y;
}

void SelfAttention::forward(const Context& context, const Rotary& rotary,
                            const Sequences& sequences, const AnyIn& x, Saved& saved,
                            const AnyView& y) const {
  const std::int64_t tokens = x.extent(0);
  const auto activation = [&](int heads) {
    return context.activations.make(config_.type, tokens,
                                    static_cast<std::int64_t>(heads) * config_.head_dim);
  };
  saved.x = x;
  const AnyView q = activation(config_.heads), k = activation(config_.kv_heads);
  saved.v = activation(config_.kv_heads);
  q_.forward(context, x, q);
  k_.forward(context, x, k);
  v_.forward(context, x, saved.v);
  saved.q = normalised(context, q_norm_, config_.heads, q, saved.q_norm);
  saved.k = normalised(context, k_norm_, config_.kv_heads, k, saved.k_norm);
  rotary.apply(context, sequences, config_.heads, /*inverse=*/false, saved.q);
  rotary.apply(context, sequences, config_.kv_heads, /*inverse=*/false, saved.k);

  saved.o = activation(config_.heads);
  saved.lse = context.activations.make(accum_type(config_.type), tokens, config_.heads);
  context.operations.attention_forward(
      context.exec, shape(),
      {rows_of(sequences), saved.q, saved.k, saved.v, saved.o, saved.lse, {}}, sequences.longest);
  o_.forward(context, saved.o, y);
}

void SelfAttention::undo_heads(const Context& context, const Rotary& rotary,
                               const Sequences& sequences, const std::optional<RmsNorm>& norm,
                               int heads, const RmsNorm::Saved& saved,
                               const AnyView& gradient) const {
  rotary.apply(context, sequences, heads, /*inverse=*/true, gradient);
  if (!norm) return;
  const AnyView rows = gradient.reshape(gradient.extent(0) * heads, config_.head_dim);
  norm->backward(context, saved, rows, {}, rows);
}

void SelfAttention::backward(const Context& context, const Rotary& rotary,
                             const Sequences& sequences, const Saved& saved, const AnyIn& dy,
                             const AnyView& dx) const {
  const ArenaScope scope(context.scratch);
  const auto scratch_like = [&](const AnyView& view) {
    return context.scratch.make(view.type(), view.extent(0), view.extent(1));
  };
  const AnyView d_o = scratch_like(saved.o);
  o_.weight_gradient(context, saved.o, dy);
  o_.data_gradient(context, dy, /*add=*/false, d_o);

  const AnyView dq = scratch_like(saved.q), dk = scratch_like(saved.k), dv = scratch_like(saved.v);
  context.operations.attention_backward(
      context.exec, shape(),
      {rows_of(sequences), saved.q, saved.k, saved.v, saved.o, saved.lse, d_o, dq, dk, dv, {}},
      sequences.longest);
  undo_heads(context, rotary, sequences, q_norm_, config_.heads, saved.q_norm, dq);
  undo_heads(context, rotary, sequences, k_norm_, config_.kv_heads, saved.k_norm, dk);

  q_.weight_gradient(context, saved.x, dq);
  k_.weight_gradient(context, saved.x, dk);
  v_.weight_gradient(context, saved.x, dv);
  q_.data_gradient(context, dq, /*add=*/false, dx);
  k_.data_gradient(context, dk, /*add=*/true, dx);
  v_.data_gradient(context, dv, /*add=*/true, dx);
}

}  // namespace konclave
