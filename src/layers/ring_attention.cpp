#include "base/fault.hpp"
#include "layers/attention_cores.hpp"
#include "ops/attention_merge.hpp"
#include "ops/elementwise.hpp"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace konclave {

namespace {

/// Keys and values of a rank, or their gradients.
template <typename Tensor> struct Pair { Tensor k, v; };

Pair<AnyView> make_pair_like(Arena& arena, DType type, const Pair<AnyIn>& like) {
  return {arena.make(type, like.k.extent(0), like.k.extent(1)),
          arena.make(type, like.v.extent(0), like.v.extent(1))};
}

/// Where tensors go: each rank sends to the one behind it and receives from the one before. Keys,
/// values and gradients go on channels of their own, as they are under way at the same time.
class Ring {
 public:
  static constexpr int kKeys = 0, kGradients = 2;  ///< the first of two channels

  explicit Ring(const Transport& group) : group_(group) {}

  int ranks() const { return group_.size(); }
  /// The rank whose keys are here at a step: those of this one at first.
  int source(int step) const { return (group_.rank() + ranks() - step) % ranks(); }

  void start_receive(const ExecSpace& exec, const Pair<AnyView>& pair, int channel,
                     std::vector<Request>& requests) const {
    const int from = (group_.rank() + ranks() - 1) % ranks();
    requests.push_back(group_.start_receive(exec, pair.k, from, channel));
    requests.push_back(group_.start_receive(exec, pair.v, from, channel + 1));
  }
  void start_send(const ExecSpace& exec, const Pair<AnyIn>& pair, int channel,
                  std::vector<Request>& requests) const {
    const int to = (group_.rank() + 1) % ranks();
    requests.push_back(group_.start_send(exec, pair.k, to, channel));
    requests.push_back(group_.start_send(exec, pair.v, to, channel + 1));
  }

 private:
  const Transport& group_;
};

void wait_all(const ExecSpace& exec, std::vector<Request>& requests) {
  for (Request& request : requests) request.wait(exec);
  requests.clear();
}

/// Keys and values on their way round. While those of one rank are worked on, those of the next
/// arrive: so at most two chunks are held beside the rank's own.
class KeysOnTheWay {
 public:
  KeysOnTheWay(const Context& context, const Ring& ring, const Pair<AnyIn>& own)
      : exec_(context.exec), ring_(ring), here_(own) {
    for (int i = 0; i < std::min(2, ring.ranks() - 1); ++i) {
      buffers_.push_back(make_pair_like(context.scratch, own.k.type(), own));
    }
  }

  const Pair<AnyIn>& here() const { return here_; }

  /// Begins to pass on what is here and to receive what comes next; nothing at the last step.
  void start_turn() {
    if (step_ + 1 == ring_.ranks()) return;
    ring_.start_receive(exec_, next(), Ring::kKeys, requests_);
    ring_.start_send(exec_, here_, Ring::kKeys, requests_);
  }
  void finish_turn() {
    if (requests_.empty()) return;
    wait_all(exec_, requests_);
    here_ = {next().k, next().v};
    ++step_;
  }

 private:
  /// Not the buffer in which `here_` is.
  const Pair<AnyView>& next() const {
    return buffers_[static_cast<std::size_t>(step_) % buffers_.size()];
  }

  ExecSpace exec_;
  const Ring& ring_;
  std::vector<Pair<AnyView>> buffers_;
  Pair<AnyIn> here_;
  int step_ = 0;
  std::vector<Request> requests_;
};

/// sum += x, element by element, in the accumulation type.
void accumulate(const ExecSpace& exec, const AnyIn& x, const AnyView& sum) {
  ops::accumulate_rows(exec, x.reshape(1, x.size()),
                       {sum.type(), sum.data(), {sum.size(), 1, 1}, 1});
}

/// Sums of the gradients of keys and values, in the accumulation type. They follow their keys from
/// rank to rank, each of which adds its part, and are at home after as many turns as there are
/// ranks.
class GradientsOnTheWay {
 public:
  GradientsOnTheWay(const Context& context, const Ring& ring, const Pair<AnyIn>& keys)
      : exec_(context.exec),
        ring_(ring),
        here_(make_pair_like(context.scratch, accum_type(keys.k.type()), keys)),
        next_(make_pair_like(context.scratch, accum_type(keys.k.type()), keys)) {
    ops::fill_zero(exec_, here_.k);
    ops::fill_zero(exec_, here_.v);
  }

  const Pair<AnyView>& here() const { return here_; }
  void add(const AnyIn& dk, const AnyIn& dv) const {
    accumulate(exec_, dk, here_.k);
    accumulate(exec_, dv, here_.v);
  }

  void send() { ring_.start_send(exec_, {here_.k, here_.v}, Ring::kGradients, leaving_); }
  void start_arrival() { ring_.start_receive(exec_, next_, Ring::kGradients, arriving_); }
  /// After this the sums that arrived are here.
  void finish_arrival() {
    wait_all(exec_, arriving_);
    wait_all(exec_, leaving_);
    std::swap(here_, next_);
  }

 private:
  ExecSpace exec_;
  const Ring& ring_;
  Pair<AnyView> here_, next_;
  std::vector<Request> leaving_, arriving_;
};

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
    const Ring ring(*cp_);
    KeysOnTheWay keys(context, ring, {k, v});
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
    const Ring ring(*cp_);
    const Pair<AnyIn> own{saved.k, saved.v};
    KeysOnTheWay keys(context, ring, own);
    GradientsOnTheWay sums(context, ring, own);
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
  static AttentionRows rows_of(const Sequences& sequences, const Ring& ring, int step) {
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
