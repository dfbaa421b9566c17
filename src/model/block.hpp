#pragma once

#include "layers/attention.hpp"
#include "layers/mlp.hpp"
#include "layers/norm.hpp"
#include "model/config.hpp"
#include "model/recompute.hpp"
#include "moe/moe_layer.hpp"

#include <optional>
#include <string>

namespace konclave {

/// One decoder layer:  a = x + attention(norm(x)),  y = a + feed_forward(norm(a)), where the feed-
/// forward part is a dense MLP or an MoE layer.   Shapes  x, y (T,H).
class Block {
 public:
  struct Saved {
    RmsNorm::Saved input_norm, post_norm;
    SelfAttention::Saved attention;
    Mlp::Saved mlp;
    MoeLayer::Saved moe;
    AnyIn feed_forward_input;
    MoeStep step;
  };

  /// `moe_index` counts the MoE layers before this one.
  Block(const ModelDefinition& definition, const Groups& groups, int layer, int moe_index,
        const ParameterStorage& storage);

  void prepare(const ExecSpace& exec, Operations& operations);
  bool is_moe() const { return moe_.has_value(); }

  /// Which of its modules are done again for backward.
  void recompute(const RecomputeConfig& config);

  /// Returns y, an activation.
  AnyView forward(const Context& context, const Rotary& rotary, const Sequences& sequences,
                  const MoeStep& step, const AnyIn& x, Saved& saved) const;
  /// Replaces dy by dx, in place; adds to the parameters' gradients.
  void backward(const Context& context, const Rotary& rotary, const Sequences& sequences,
                const Saved& saved, const AnyView& gradient) const;

  template <typename Visitor> void visit_parameters(Visitor&& visit) {
    input_norm_.visit_parameters(visit);
    attention_.visit_parameters(visit);
    post_norm_.visit_parameters(visit);
    if (mlp_) mlp_->visit_parameters(visit);
    if (moe_) moe_->visit_parameters(visit);
  }

 private:
  std::string attention_label_, feed_forward_label_;  ///< in a trace
  RmsNorm input_norm_;
  SelfAttention attention_;
  RmsNorm post_norm_;
  std::optional<Mlp> mlp_;
  std::optional<MoeLayer> moe_;
  /// The output of a norm as forward made it: kept, or made again in scratch memory.
  AnyIn normed(const Context& context, const RmsNorm& norm, const RmsNorm::Saved& saved,
               const AnyIn& kept) const;

  bool feed_forward_again_ = false, norms_again_ = false;
};

}  // namespace konclave
