#include "layers/attention_cores.hpp"
#include "ops/columns.hpp"
#include "ops/embedding.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace konclave {

namespace {

/// The part of the heads that one of `ranks` works on.
AttentionShape part_of(AttentionShape shape, int ranks) {
  require(shape.heads % ranks == 0 && shape.kv_heads % ranks == 0,
          std::to_string(shape.heads) + " heads and " + std::to_string(shape.kv_heads) +
              " key/value heads cannot be shared out evenly over " + std::to_string(ranks) +
              " ranks");
  shape.heads /= ranks;
  shape.kv_heads /= ranks;
  return shape;
}

/// Each rank exchanges its rows of all heads for all rows of its part of the heads. What backward
/// needs is saved exchanged, so that only gradients move then.
class HeadExchangeAttention final : public AttentionCore {
 public:
  HeadExchangeAttention(const AttentionShape& shape, Groups::Group cp)
      : shape_(part_of(shape, cp->size())), cp_(std::move(cp)) {}

  void forward(const Context& context, const Sequences& sequences, const AnyIn& q, const AnyIn& k,
               const AnyIn& v, Saved& saved, const AnyView& o) const override {
    const ArenaScope scope(context.scratch);
    Transfer of_q = start_to_heads(context, q), of_k = start_to_heads(context, k),
             of_v = start_to_heads(context, v);
    saved.q = finish_to_heads(context, sequences, of_q, context.activations);
    saved.k = finish_to_heads(context, sequences, of_k, context.activations);
    saved.v = finish_to_heads(context, sequences, of_v, context.activations);
    const AnyView whole_o =
        context.activations.make(o.type(), saved.q.extent(0), o.extent(1) / ranks());
    saved.o = whole_o;
    saved.lse = context.activations.make(accum_type(shape_.type), saved.q.extent(0), shape_.heads);
    context.operations.attention_forward(
        context.exec, shape_,
        {rows_of(sequences), saved.q, saved.k, saved.v, whole_o, saved.lse, {}},
        sequences.whole.longest);
    Transfer of_o = start_to_rows(context, sequences, whole_o);
    finish_to_rows(context, of_o, o);
  }

  void backward(const Context& context, const Sequences& sequences, const Saved& saved,
                const AnyIn& d_o, const AnyView& dq, const AnyView& dk,
                const AnyView& dv) const override {
    const ArenaScope scope(context.scratch);
    const auto scratch_like = [&](const AnyIn& view) {
      return context.scratch.make(view.type(), view.extent(0), view.extent(1));
    };
    Transfer of_d_o = start_to_heads(context, d_o);
    const AnyView whole_d_o = finish_to_heads(context, sequences, of_d_o, context.scratch);
    const AnyView whole_dq = scratch_like(saved.q), whole_dk = scratch_like(saved.k),
                  whole_dv = scratch_like(saved.v);
    context.operations.attention_backward(context.exec, shape_,
                                          {rows_of(sequences),
                                           saved.q,
                                           saved.k,
                                           saved.v,
                                           saved.o,
                                           saved.lse,
                                           whole_d_o,
                                           whole_dq,
                                           whole_dk,
                                           whole_dv,
                                           {}},
                                          sequences.whole.longest);
    Transfer of_dq = start_to_rows(context, sequences, whole_dq),
             of_dk = start_to_rows(context, sequences, whole_dk),
             of_dv = start_to_rows(context, sequences, whole_dv);
    finish_to_rows(context, of_dq, dq);
    finish_to_rows(context, of_dk, dk);
    finish_to_rows(context, of_dv, dv);
  }

 private:
  /// Rows on their way, and where they arrive, in scratch memory.
  struct Transfer {
    AnyView arrived;
    Request request;
  };

  static AttentionRows rows_of(const Sequences& sequences) {
    const WholeSequences& whole = sequences.whole;
    return {whole.offsets, whole.offsets, whole.positions, whole.positions};
  }

  int ranks() const { return cp_->size(); }

  /// `send` (R T, n), T rows for each rank.
  Transfer start(const Context& context, const AnyIn& send) const {
    const std::vector<std::int64_t> rows(static_cast<std::size_t>(ranks()),
                                         send.extent(0) / ranks());
    const AnyView arrived = context.scratch.make(send.type(), send.extent(0), send.extent(1));
    return {arrived, cp_->start_all_to_all(context.exec, send, rows, arrived, rows)};
  }

  /// From this rank's rows x (T, R n) to all rows of its heads (R T, n), in the order of sequences.
  Transfer start_to_heads(const Context& context, const AnyIn& x) const {
    const AnyView send =
        context.scratch.make(x.type(), x.extent(0) * ranks(), x.extent(1) / ranks());
    ops::split_columns(context.exec, x, send);
    return start(context, send);
  }
  AnyView finish_to_heads(const Context& context, const Sequences& sequences, Transfer& transfer,
                          Arena& arena) const {
    transfer.request.wait(context.exec);
    const AnyView& arrived = transfer.arrived;
    const AnyView rows = arena.make(arrived.type(), arrived.extent(0), arrived.extent(1));
    ops::gather_rows(context.exec, arrived, sequences.whole.arrival_of, rows);
    return rows;
  }

  /// The way back.
  Transfer start_to_rows(const Context& context, const Sequences& sequences, const AnyIn& x) const {
    const AnyView send = context.scratch.make(x.type(), x.extent(0), x.extent(1));
    ops::gather_rows(context.exec, x, sequences.whole.place_of, send);
    return start(context, send);
  }
  void finish_to_rows(const Context& context, Transfer& transfer, const AnyView& y) const {
    transfer.request.wait(context.exec);
    ops::join_columns(context.exec, transfer.arrived, y);
  }

  AttentionShape shape_;
  Groups::Group cp_;
};

}  // namespace

std::unique_ptr<const AttentionCore> make_head_exchange_attention(const AttentionShape& shape,
                                                                  Groups::Group cp) {
  return std::make_unique<HeadExchangeAttention>(shape, std::move(cp));
}

}  // namespace konclave
