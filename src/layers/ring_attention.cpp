#include "base/fault.hpp"
#include "layers/attention_cores.hpp"
#include "layers/attention_ring.hpp"
#include "ops/attention_merge.hpp"
#include "ops/elementwise.hpp"

#include <cstdint>
#include <string>
#include <utility>

namespace konclave {

namespace {

/// A result as sums are taken of it: in the accumulation type, either itself or a copy.
AnyView widened(const Context& context, const AnyView& result) {
  const DType type = accum_type(result.type());
  if (result.type() == type) return result;
  const AnyView wide = context.scratch.make(type, result.extent(0), result.extent(1));
  ops::cast(context.exec, result, wide);
  return wide;
}
/// The way back, rounded once.
void store(const Context& context, const AnyView& wide, const AnyView& result) {
  if (wide.data() != result.data()) ops::cast(context.exec, wide, result);
}

/// Keys and values go round, and each rank works on those of one rank after the other: at step j of
/// rank c those of rank c - j. Whatever the step, a rank has queries that see keys, as each has an
/// early and a late chunk of every sequence.
class RingAttention final : public AttentionCore {
 public:
  RingAttention(const AttentionShape& shape, Groups::Group cp)
      : shape_(shape), cp_(std::move(cp)) {}

  void forward(const Context& context, const Sequences& sequences, const AnyIn& q, const AnyIn& k,
               const AnyIn& v, Saved& saved, const AnyView& o) const override {
    const DType wide = accum_type(shape_.type);
    saved = {q, k, v, o, context.activations.make(wide, q.extent(0), shape_.heads)};
    const ArenaScope scope(context.scratch);
    const AttentionRing ring(*cp_);
    KeysOnTheWay keys(context, ring, {k, v});
    const Operations::Pause polling(context.operations, [&](const ExecSpace&) { keys.poll(); });
    const AnyView part_o = context.scratch.make(o.type(), o.extent(0), o.extent(1));
    const AnyView part_lse = context.scratch.make(wide, q.extent(0), shape_.heads);
    AnyView merged_o;
    for (int step = 0; step < ring.ranks(); ++step) {
      keys.start_turn();
      const bool first = step == 0;
      context.operations.attention_forward(context.exec, shape_,
                                           {rows_of(sequences, ring, step),
                                            q,
                                            keys.here().k,
                                            keys.here().v,
                                            first ? o : part_o,
                                            first ? saved.lse : part_lse,
                                            {}},
                                           sequences.longest);
      if (first) {
        merged_o = widened(context, o);
      } else {
        // Equal weights for both parts, if so.
        const bool equally = fault("context.merge_without_lse");
        ops::merge_attention(context.exec, part_o, equally ? saved.lse : part_lse, merged_o,
                             saved.lse);
      }
      keys.finish_turn();
    }
    store(context, merged_o, o);
  }

  void backward(const Context& context, const Sequences& sequences, const Saved& saved,
                const AnyIn& d_o, const AnyView& dq, const AnyView& dk,
                const AnyView& dv) const override {
    const ArenaScope scope(context.scratch);
    const AttentionRing ring(*cp_);
    const KeyValuePair<AnyIn> own{saved.k, saved.v};
    KeysOnTheWay keys(context, ring, own);
    GradientsOnTheWay sums(context, ring, own);
    const Operations::Pause polling(context.operations, [&](const ExecSpace&) {
      keys.poll();
      sums.poll();
    });
    const AnyView part_dq = context.scratch.make(dq.type(), dq.extent(0), dq.extent(1));
    AnyView sum_dq;
    for (int step = 0; step < ring.ranks(); ++step) {
      keys.start_turn();
      const bool first = step == 0;
      if (!first) sums.start_arrival();
      // dk and dv serve as scratch memory until the sums are home.
      context.operations.attention_backward(context.exec, shape_,
                                            {rows_of(sequences, ring, step),
                                             saved.q,
                                             keys.here().k,
                                             keys.here().v,
                                             saved.o,
                                             saved.lse,
                                             d_o,
                                             first ? dq : part_dq,
                                             dk,
                                             dv,
                                             {}},
                                            sequences.longest);
      if (first) {
        sum_dq = widened(context, dq);
      } else {
        accumulate(context.exec, part_dq, sum_dq);
        sums.finish_arrival();
      }
      if (first || !fault("context.gradients_not_home")) sums.add(dk, dv);
      sums.send();
      keys.finish_turn();
    }
    sums.start_arrival();
    sums.finish_arrival();
    store(context, sum_dq, dq);
    ops::cast(context.exec, sums.here().k, dk);
    ops::cast(context.exec, sums.here().v, dv);
  }

 private:
  /// This rank's queries, and the keys that are here at a step.
  static AttentionRows rows_of(const Sequences& sequences, const AttentionRing& ring, int step) {
    const std::int64_t tokens = sequences.tokens;
    const View1<const int>& all = sequences.whole.rank_positions;
    require(static_cast<std::int64_t>(all.size()) == ring.ranks() * tokens,
            "ring attention: the sequences have no tables of " + std::to_string(ring.ranks()) +
                " ranks");
    const bool late = fault("context.keys_one_step_late") && step > 0;
    const View1<const int> positions(all.data() + ring.source(late ? step - 1 : step) * tokens,
                                     static_cast<std::size_t>(tokens));
    return {sequences.offsets, sequences.offsets, sequences.positions, positions};
  }

  AttentionShape shape_;
  Groups::Group cp_;
};

}  // namespace

std::unique_ptr<const AttentionCore> make_ring_attention(const AttentionShape& shape,
                                                         Groups::Group cp) {
  return std::make_unique<RingAttention>(shape, std::move(cp));
}

}  // namespace konclave
