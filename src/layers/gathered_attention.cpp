#include "layers/attention_cores.hpp"
#include "ops/embedding.hpp"
#include "parallel/collectives.hpp"

#include <utility>

namespace konclave {

namespace {

/// Each rank gathers the keys and values of all ranks, and again on the way back.
class GatheredAttention final : public AttentionCore {
 public:
  GatheredAttention(const AttentionShape& shape, Groups::Group cp)
      : shape_(shape), cp_(std::move(cp)) {}

  void forward(const Context& context, const Sequences& sequences, const AnyIn& q, const AnyIn& k,
               const AnyIn& v, Saved& saved, const AnyView& o) const override {
    const AnyView lse =
        context.activations.make(accum_type(shape_.type), q.extent(0), shape_.heads);
    saved = {q, k, v, o, lse};
    const ArenaScope scope(context.scratch);
    const Keys all = gather(context, sequences, k, v);
    context.operations.attention_forward(context.exec, shape_,
                                         {rows_of(sequences), q, all.k, all.v, o, lse, {}},
                                         sequences.whole.longest);
  }

  void backward(const Context& context, const Sequences& sequences, const Saved& saved,
                const AnyIn& d_o, const AnyView& dq, const AnyView& dk,
                const AnyView& dv) const override {
    const ArenaScope scope(context.scratch);
    const Keys all = gather(context, sequences, saved.k, saved.v);
    const Keys gradients{rows_of_all(context, dk), rows_of_all(context, dv)};
    context.operations.attention_backward(context.exec, shape_,
                                          {rows_of(sequences),
                                           saved.q,
                                           all.k,
                                           all.v,
                                           saved.o,
                                           saved.lse,
                                           d_o,
                                           dq,
                                           gradients.k,
                                           gradients.v,
                                           {}},
                                          sequences.whole.longest);
    bring_home(context, sequences, gradients.k, dk);
    bring_home(context, sequences, gradients.v, dv);
  }

 private:
  /// Keys and values of all ranks, or their gradients, in the order of sequences.
  struct Keys {
    AnyView k, v;
  };

  static AttentionRows rows_of(const Sequences& sequences) {
    return {sequences.offsets, sequences.whole.offsets, sequences.positions,
            sequences.whole.positions};
  }

  AnyView rows_of_all(const Context& context, const AnyIn& mine) const {
    return context.scratch.make(mine.type(), cp_->size() * mine.extent(0), mine.extent(1));
  }

  Keys gather(const Context& context, const Sequences& sequences, const AnyIn& k,
              const AnyIn& v) const {
    const Keys ordered{rows_of_all(context, k), rows_of_all(context, v)};
    const ArenaScope scope(context.scratch);
    const Keys arrived{rows_of_all(context, k), rows_of_all(context, v)};
    Request of_k = cp_->start_all_gather(context.exec, k, arrived.k);
    Request of_v = cp_->start_all_gather(context.exec, v, arrived.v);
    of_k.wait(context.exec);
    ops::gather_rows(context.exec, arrived.k, sequences.whole.arrival_of, ordered.k);
    of_v.wait(context.exec);
    ops::gather_rows(context.exec, arrived.v, sequences.whole.arrival_of, ordered.v);
    return ordered;
  }

  /// mine = the sum over ranks of this rank's rows of `all`, which is in the order of sequences.
  void bring_home(const Context& context, const Sequences& sequences, const AnyIn& all,
                  const AnyView& mine) const {
    const ArenaScope scope(context.scratch);
    const AnyView ordered = rows_of_all(context, mine);
    ops::gather_rows(context.exec, all, sequences.whole.place_of, ordered);
    reduce_scatter_in_order(context.exec, context.scratch, *cp_, ordered, mine);
  }

  AttentionShape shape_;
  Groups::Group cp_;
};

}  // namespace

std::unique_ptr<const AttentionCore> make_gathered_attention(const AttentionShape& shape,
                                                             Groups::Group cp) {
  return std::make_unique<GatheredAttention>(shape, std::move(cp));
}

}  // namespace konclave
