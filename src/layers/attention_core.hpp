#pragma once

#include "layers/context.hpp"
#include "parallel/groups.hpp"

#include <memory>

namespace konclave {

/// Attention between the projections:  o = attention(q, k, v), where every query sees the keys of
/// its whole sequence, on whichever rank of cp they are. Shapes  q, o (T, heads*D)   k, v (T,
/// kv_heads*D) for the T rows and the heads of this rank; the types are those of the shape.
class AttentionCore {
 public:
  /// What backward needs; in which form is the implementation's own matter.
  struct Saved {
    AnyIn q, k, v, o;
    AnyView lse;
  };

  virtual ~AttentionCore() = default;
  AttentionCore() = default;
  AttentionCore(const AttentionCore&) = delete;
  AttentionCore& operator=(const AttentionCore&) = delete;

  /// Overwrites o. q, k, v and o have to live until backward.
  virtual void forward(const Context& context, const Sequences& sequences, const AnyIn& q,
                       const AnyIn& k, const AnyIn& v, Saved& saved, const AnyView& o) const = 0;
  /// Overwrites dq, dk, dv.
  virtual void backward(const Context& context, const Sequences& sequences, const Saved& saved,
                        const AnyIn& d_o, const AnyView& dq, const AnyView& dk,
                        const AnyView& dv) const = 0;
};

/// By groups.cp and groups.parallel.cp_comm:
///   one rank    the operation itself
///   ring        keys and values go round; partial results are merged by their log-sum-exp
///   all_gather  keys and values of all ranks are gathered
///   a2a         all-to-all: whole sequences and a part of the heads (Ulysses); heads and kv_heads
///   of
///               the shape must be multiples of the ranks
/// `shape` has the heads that this rank has of the model, its part of tp.
std::unique_ptr<const AttentionCore> make_attention_core(const AttentionShape& shape,
                                                         const Groups& groups);

}  // namespace konclave
