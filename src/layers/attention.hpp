#pragma once

#include "layers/attention_core.hpp"
#include "layers/linear.hpp"
#include "layers/norm.hpp"
#include "layers/rotary.hpp"

#include <memory>
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
/// Shapes  x, y (T,H) of the rows outside.
///
/// Each rank of tp has a part of the heads. Heads of keys and values that are fewer than the ranks
/// are made by all of them, and each takes the one that its queries read.
class SelfAttention {
 public:
  struct Saved {
    AnyIn x;        ///< of the rows outside
    AnyView o;      ///< where the core is not done again
    AnyIn q, k, v;  ///< what goes into the core
    RmsNorm::Saved q_norm, k_norm;
    AttentionCore::Saved core;
  };

  SelfAttention(const std::string& name, const SelfAttentionConfig& config, const Groups& groups,
                const ParameterStorage& storage);

  void prepare(const ExecSpace& exec, Operations& operations);

  /// Whether what the core makes (o, and what it keeps) is made again for backward.
  void repeat_core(bool again) { core_again_ = again; }

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
  /// With the heads of this rank.
  AttentionShape shape() const;
  bool shares_kv_head() const { return config_.kv_heads % tp_.ranks() != 0; }
  int heads() const { return config_.heads / tp_.ranks(); }
  int kv_heads() const { return shares_kv_head() ? 1 : config_.kv_heads / tp_.ranks(); }
  /// Columns before this rank's head in what all ranks make, where a head is shared.
  std::int64_t kv_column() const;

  /// Keys or values of this rank's heads.
  void project_kv(const Context& context, const Linear& projection, const AnyIn& x,
                  const AnyView& mine) const;
  /// The gradient of what `projection` made, of that of this rank's heads.
  AnyIn undo_kv(const Context& context, const AnyView& gradient) const;
  /// Normalises each head of `raw` (T, heads*D) into a new view; without a norm `raw` itself.
  AnyView normalised(const Context& context, const std::optional<RmsNorm>& norm, int heads,
                     const AnyView& raw, RmsNorm::Saved& saved) const;
  /// Turns the gradient of what `normalised` made into that of its `raw`, in place.
  void undo_norm(const Context& context, const std::optional<RmsNorm>& norm, int heads,
                 const RmsNorm::Saved& saved, const AnyView& gradient) const;

  SelfAttentionConfig config_;
  TensorParallel tp_;
  bool core_again_ = false;
  Linear q_, k_, v_, o_;
  std::optional<RmsNorm> q_norm_, k_norm_;
  std::unique_ptr<const AttentionCore> core_;
};

}  // namespace konclave
