#pragma once

#include "layers/context.hpp"
#include "layers/parameter.hpp"

#include <span>

namespace konclave {

/// One prediction head: next-token cross entropy of  logits = hidden W^T.
/// Shapes  hidden, d_hidden (T,H)   W (V,H)   labels, losses (T).
struct LossHead {
  const Parameter* weight = nullptr;
  AnyIn hidden;
  View1<const int> labels;  ///< below 0: not scored
  double scale = 1;         ///< of the gradient: 1 / scored tokens of the global batch
  View1<double> losses;     ///< per token in nats, 0 where not scored
  AnyView d_hidden;         ///< overwritten; empty: no gradients are wanted
};

/// Losses of all heads and, where wanted, the gradients of hidden and W (added to), scaled. Works
/// through blocks of rows, so that the logits of a block are all that is ever held.
void loss_heads(const Context& context, std::span<const LossHead> heads);

/// logits = hidden W^T in the accumulation type.   Shapes  hidden (T,H)   logits (T,V).
void head_logits(const Context& context, const Parameter& weight, const AnyIn& hidden,
                 const AnyView& logits);

}  // namespace konclave
