#include "layers/attention_cores.hpp"

namespace konclave {

namespace {

/// One rank has the whole sequences.
class LocalAttention final : public AttentionCore {
 public:
  explicit LocalAttention(const AttentionShape& shape) : shape_(shape) {}

  void forward(const Context& context, const Sequences& sequences, const AnyIn& q, const AnyIn& k,
               const AnyIn& v, Saved& saved, const AnyView& o) const override {
    const AnyView lse =
        context.activations.make(accum_type(shape_.type), q.extent(0), shape_.heads);
    saved = {q, k, v, o, lse};
    context.operations.attention_forward(
        context.exec, shape_, {rows_of(sequences), q, k, v, o, lse, {}}, sequences.longest);
  }

  void backward(const Context& context, const Sequences& sequences, const Saved& saved,
                const AnyIn& d_o, const AnyView& dq, const AnyView& dk,
                const AnyView& dv) const override {
    context.operations.attention_backward(
        context.exec, shape_,
        {rows_of(sequences), saved.q, saved.k, saved.v, saved.o, saved.lse, d_o, dq, dk, dv, {}},
        sequences.longest);
  }

 private:
  static AttentionRows rows_of(const Sequences& sequences) {
    return {sequences.offsets, sequences.offsets, sequences.positions, sequences.positions};
  }

  AttentionShape shape_;
};

}  // namespace

std::unique_ptr<const AttentionCore> make_local_attention(const AttentionShape& shape) {
  return std::make_unique<LocalAttention>(shape);
}

}  // namespace konclave
