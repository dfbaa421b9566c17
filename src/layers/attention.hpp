#pragma once

#include "layers/linear.hpp"
#include "layers/norm.hpp"
#include "layers/rotary.hpp"

#include <optional>
#include <string>

namespace konclave {

struct SelfAttentionConfig {
  int hidden = 0, heads = 0, kv_heads = 0, head_dim = 0;
  DType type = DType::fp32;
  bool qk_norm = false, qkv_bias = false;
  double norm_eps = 1e-5;
  double init_std = 0.02, output_init_std = 0.02;
};

/// Causal self-attention with grouped queries and rotary positions:
///   q, k, v = projections of x;  q, k normalised per head if asked for, then rotated;
///   o = attention(q, k, v) with scale 1/sqrt(head_dim);  y = o Wo^T
/// Shapes  x, y (T,H).
class SelfAttention {
 public:
  struct Saved {
    AnyIn x;
    AnyView q, k, v, o, lse;  ///< q, k as attention read them
    RmsNorm::Saved q_norm, k_norm;
  };

  SelfAttention(const std::string& name, const SelfAttentionConfig& config,
                const ParameterStorage& storage);

  void prepare(const ExecSpace& exec, Operations& operations);

  /// Overwrites y.
  void forward(const Context& context, const Rotary& rotary, const Sequences& sequences,
               const AnyIn& x, Saved& saved, const AnyView& y) const;
  /// Overwrites dx, which may be dy; adds to the parameters' gradients.
  void backward(const Context& context, const Rotary& rotary, const Sequences& sequences,
                const Saved& saved, const AnyIn& dy, const AnyView& dx) const;

  template <typename Visitor> void visit_parameters(Visitor&& visit) {
    for (Linear* projection : {&q_, &k_, &v_, &o_}) projection->visit_parameters(visit);
    if (q_norm_) q_norm_->visit_parameters(visit);
    if (k_norm_) k_norm_->visit_parameters(visit);
  }

 private:
  AttentionShape shape() const;
  /// Normalises each head of `raw` (T, heads*D) into a new view; without a norm `raw` itself.
  AnyView normalised(const Context& context, const std::optional<RmsNorm>& norm, int heads,
                     const AnyView& raw, RmsNorm::Saved& saved) const;
  /// Turns the gradient of the rotated heads into that of the projection's output, in place.
  void undo_heads(const Context& context, const Rotary& rotary, const Sequences& sequences,
                  const std::optional<RmsNorm>& norm, int heads, const RmsNorm::Saved& saved,
                  const AnyView& gradient) const;

  SelfAttentionConfig config_;
  Linear q_, k_, v_, o_;
  std::optional<RmsNorm> q_norm_, k_norm_;
};

}  // namespace konclave
