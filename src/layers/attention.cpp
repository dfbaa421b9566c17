#include "layers/attention.hpp"

#include "ops/columns.hpp"
#include "ops/elementwise.hpp"
#include "parallel/entering.hpp"
#include "parallel/leaving.hpp"

#include <cmath>

namespace konclave {

namespace {

LinearConfig projection(const SelfAttentionConfig& config, int heads, bool split) {
  return {config.hidden,   heads * config.head_dim, config.type,
          config.qkv_bias, config.init_std,         split ? Split::outputs : Split::none};
}

LinearConfig output_projection(const SelfAttentionConfig& config) {
  return {config.heads * config.head_dim, config.hidden, config.type, false,
          config.output_init_std,         Split::inputs};
}

}  // namespace

SelfAttention::SelfAttention(const std::string& name, const SelfAttentionConfig& config,
                             const Groups& groups, const ParameterStorage& storage)
    : config_(config),
      tp_(groups),
      q_(name + ".q_proj", projection(config, config.heads, true), tp_, storage),
      k_(name + ".k_proj", projection(config, config.kv_heads, !shares_kv_head()), tp_, storage),
      v_(name + ".v_proj", projection(config, config.kv_heads, !shares_kv_head()), tp_, storage),
      o_(name + ".o_proj", output_projection(config), tp_, storage) {
  const int ranks = tp_.ranks();
  require(config.heads % ranks == 0 && (!shares_kv_head() || ranks % config.kv_heads == 0),
          name + ": heads cannot be shared out over " + std::to_string(ranks) + " ranks of tp");
  if (config.qk_norm) {
    const auto norm = [&](const char* which) {
      return RmsNorm(name + which, config.head_dim, config.norm_eps, config.type,
                     RmsNorm::Region::inside, tp_, storage);
    };
    q_norm_.emplace(norm(".q_norm"));
    k_norm_.emplace(norm(".k_norm"));
  }
  core_ = make_attention_core(shape(), groups);
}

AttentionShape SelfAttention::shape() const {
  return {heads(),
          kv_heads(),
          config_.head_dim,
          config_.head_dim,
          1 / std::sqrt(static_cast<double>(config_.head_dim)),
          config_.type};
}

std::int64_t SelfAttention::kv_column() const {
  return std::int64_t{tp_.rank()} * config_.kv_heads / tp_.ranks() * config_.head_dim;
}

void SelfAttention::prepare(const ExecSpace& exec, Operations& operations) {
  for (Linear* projection : {&q_, &k_, &v_, &o_}) projection->prepare(exec, operations);
  operations.choose(shape());
}

void SelfAttention::project_kv(const Context& context, const Linear& projection, const AnyIn& x,
                               const AnyView& mine) const {
  if (!shares_kv_head()) {
    projection.forward(context, x, mine);
    return;
  }
  const ArenaScope scope(context.scratch);
  const AnyView all = context.scratch.make(config_.type, x.extent(0), projection.outputs());
  projection.forward(context, x, all);
  ops::copy_columns(context.exec, all, kv_column(), mine, 0, mine.extent(1));
}

AnyIn SelfAttention::undo_kv(const Context& context, const AnyView& gradient) const {
  if (!shares_kv_head()) return gradient;
  const AnyView all = context.scratch.make(config_.type, gradient.extent(0),
                                           std::int64_t{config_.kv_heads} * config_.head_dim);
  ops::fill_zero(context.exec, all);
  ops::copy_columns(context.exec, gradient, 0, all, kv_column(), gradient.extent(1));
  return all;
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
  const ArenaScope scope(context.scratch);
  const auto activation = [&](int heads) {
    return context.activations.make(config_.type, sequences.tokens,
                                    std::int64_t{heads} * config_.head_dim);
  };
  saved.x = x;
  const AnyView raw_q = activation(heads()), raw_k = activation(kv_heads()),
                v = activation(kv_heads());
  Entering entering(context.exec, context.operations, context.scratch, tp_, x);
  entering.each([&](const RowBlock& rows, const AnyIn& inside) {
    q_.forward(context, inside, raw_q.slice(rows.first, rows.rows));
    project_kv(context, k_, inside, raw_k.slice(rows.first, rows.rows));
    project_kv(context, v_, inside, v.slice(rows.first, rows.rows));
  });
  const AnyView q = normalised(context, q_norm_, heads(), raw_q, saved.q_norm);
  const AnyView k = normalised(context, k_norm_, kv_heads(), raw_k, saved.k_norm);
  rotary.apply(context, sequences, /*inverse=*/false, q, k);

  saved.q = q;
  saved.k = k;
  saved.v = v;
  const Arena::Mark mark = context.activations.mark();
  saved.o = activation(heads());
  core_->forward(context, sequences, q, k, v, saved.core, saved.o);
  Leaving leaving(context.exec, context.operations, context.scratch, tp_, y);
  leaving.each([&](const RowBlock& rows, const AnyView& partial) {
    o_.forward(context, saved.o.slice(rows.first, rows.rows), partial);
  });
  leaving.finish();
  if (core_again_) context.activations.rewind(mark);
}

void SelfAttention::undo_norm(const Context& context, const std::optional<RmsNorm>& norm, int heads,
                              const RmsNorm::Saved& saved, const AnyView& gradient) const {
  if (!norm) return;
  const AnyView rows = gradient.reshape(gradient.extent(0) * heads, config_.head_dim);
  norm->backward(context, saved, rows, {}, rows);
}

void SelfAttention::backward(const Context& context, const Rotary& rotary,
                             const Sequences& sequences, const Saved& saved, const AnyIn& dy,
                             const AnyView& dx) const {
  const ArenaScope scope(context.scratch);
  const auto scratch = [&](int heads) {
    return context.scratch.make(config_.type, sequences.tokens,
                                std::int64_t{heads} * config_.head_dim);
  };
  const ArenaScope again_scope(context.activations);
  // Rows that are on their way need memory: with overlap those of x from here on.
  Entering entering_dy(context.exec, context.operations, context.scratch, tp_, dy);
  Entering entering_x(context.exec, context.operations, context.scratch, tp_, saved.x);
  AnyView o = saved.o;
  AttentionCore::Saved core = saved.core;
  if (core_again_) {
    o = context.activations.make(config_.type, sequences.tokens,
                                 std::int64_t{heads()} * config_.head_dim);
    core_->forward(context, sequences, saved.q, saved.k, saved.v, core, o);
  }
  const AnyView d_o = scratch(heads());
  entering_dy.each([&](const RowBlock& rows, const AnyIn& inside) {
    o_.data_gradient(context, inside, /*add=*/false, d_o.slice(rows.first, rows.rows));
  });
  o_.weight_gradient(context, o, entering_dy.all());  // before dx, which may be dy

  const AnyView dq = scratch(heads()), dk = scratch(kv_heads()), dv = scratch(kv_heads());
  core_->backward(context, sequences, core, d_o, dq, dk, dv);
  rotary.apply(context, sequences, /*inverse=*/true, dq, dk);
  undo_norm(context, q_norm_, heads(), saved.q_norm, dq);
  undo_norm(context, k_norm_, kv_heads(), saved.k_norm, dk);

  const AnyIn dk_made = undo_kv(context, dk), dv_made = undo_kv(context, dv);
  Leaving leaving(context.exec, context.operations, context.scratch, tp_, dx);
  leaving.each([&](const RowBlock& rows, const AnyView& partial) {
    const auto part = [&](const AnyIn& of_all) { return of_all.slice(rows.first, rows.rows); };
    q_.data_gradient(context, part(dq), /*add=*/false, partial);
    k_.data_gradient(context, part(dk_made), /*add=*/true, partial);
    v_.data_gradient(context, part(dv_made), /*add=*/true, partial);
  });
  const AnyIn inside = entering_x.all();
  q_.weight_gradient(context, inside, dq);
  k_.weight_gradient(context, inside, dk_made);
  v_.weight_gradient(context, inside, dv_made);
  leaving.finish();
}

}  // namespace konclave
