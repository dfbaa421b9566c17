#pragma once

#include "layers/context.hpp"
#include "layers/parameter.hpp"
#include "parallel/tensor_parallel.hpp"

#include <span>

namespace konclave {

/// One prediction head: next-token cross entropy of  logits = hidden W^T. Each rank of tp has a
/// part of the vocabulary. Shapes  hidden, d_hidden (T,H), of the region outside (TensorParallel)
/// W (V,H), of which this
///         rank has a part of the rows   labels, losses (T), of the region inside.
struct LossHead {
  const Parameter* weight = nullptr;
  AnyIn hidden;
  View1<const int> labels;  ///< numbers in the whole vocabulary; below 0: not scored
  double scale = 1;         ///< of the gradient: 1 / scored tokens of the global batch
  View1<double> losses;     ///< per token in nats, 0 where not scored; the same on all ranks of tp
  AnyView d_hidden;         ///< overwritten; empty: no gradients are wanted
};

/// Losses of all heads and, where wanted, the gradients of hidden and W (added to), scaled. Works
/// through blocks of rows, and in each through blocks of the vocabulary, so that one number for
/// each logit of a block of rows is all that is ever held: of this rank's part, and for each row
/// three numbers of every other part. Collective over tp.
void loss_heads(const Context& context, const TensorParallel& tp, std::span<const LossHead> heads);

/// logits = hidden W^T in the accumulation type, of the whole vocabulary on every rank of tp.
/// Shapes  hidden (T,H), of the region inside   logits (T,V). Collective over tp; made for
/// evaluation.
void head_logits(const Context& context, const TensorParallel& tp, const Parameter& weight,
                 const AnyIn& hidden, const AnyView& logits);

}  // namespace konclave
