#include "model/loss.hpp"

#include "base/fault.hpp"
#include "ops/cross_entropy.hpp"
#include "ops/elementwise.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace konclave {

namespace {

/// Terms of the softmax held at a time: rows enough for efficient products, small beside the
/// activations.
constexpr std::int64_t kBlockElements = std::int64_t{1} << 23;
constexpr std::int64_t kLeastRows = 128, kMostRows = 1024;
/// Columns of the vocabulary at a time: few, so that logits are still in the cache when they are
/// read; a weight can be cut there.
constexpr std::int64_t kBlockColumns = 4 * PreparedWeight::kRows;

/// Rows of a block, the same on all ranks: by the widest part of the vocabulary.
std::int64_t rows_of_block(const Parameter& weight, int ranks) {
  const std::int64_t widest = (weight.spec().shape[0] + ranks - 1) / ranks;
  return std::clamp(kBlockElements / widest, kLeastRows, kMostRows);
}

/// Logits of this rank's part of the vocabulary.
void part_logits(const Context& context, const Parameter& weight, const AnyIn& hidden,
                 const AnyView& logits) {
  GemmShape shape = weight.gemm_shape(GemmKind::forward);
  shape.result = logits.type();
  context.operations.gemm(context.exec, shape,
                          {hidden, &weight.prepared(GemmKind::forward), {}, logits, {}});
}

/// A block of rows of a head. Works through blocks of this rank's part of the vocabulary: forward
/// through all of them, then, with the statistics of whole rows, backward. In between the terms of
/// the softmax are kept, once and in the compute type; the gradient of the logits takes their
/// place.
class RowsOfHead {
 public:
  RowsOfHead(const Context& context, const LossHead& head, const AnyIn& inside, std::int64_t first,
             std::int64_t rows)
      : context_(context),
        weight_(*head.weight),
        hidden_(inside.slice(first, rows)),
        labels_(Kokkos::subview(head.labels, std::make_pair(first, first + rows))),
        losses_(Kokkos::subview(head.losses, std::make_pair(first, first + rows))),
        scale_(head.scale),
        gradients_(!head.d_hidden.empty()),
        type_(inside.type()),
        wide_(accum_type(type_)),
        vocabulary_(weight_.shard().extent[0]),
        statistics_(make_statistics((vocabulary_ + kBlockColumns - 1) / kBlockColumns)) {
    if (gradients_) terms_ = context.scratch.make(type_, rows * vocabulary_);
    if (!gradients_ || type_ != wide_) {
      logits_ = context.scratch.make(wide_, rows * std::min(kBlockColumns, vocabulary_));
    }
  }

  /// Losses, and what backward needs. Collective over tp.
  void forward(const TensorParallel& tp) {
    for (std::int64_t first = 0; first < vocabulary_; first += kBlockColumns) forward_block(first);
    whole_ = make_statistics(1);
    ops::merge_cross_entropy(context_.exec, statistics_, labels_, whole_, losses_);
    if (tp.ranks() == 1) return;
    const AnyView own = whole_, parts = make_statistics(tp.ranks());
    whole_ = make_statistics(1);
    tp.group().start_all_gather(context_.exec, own, parts).wait(context_.exec);
    ops::merge_cross_entropy(context_.exec, fault("loss.local_vocabulary") ? own : parts, labels_,
                             whole_, losses_);
  }

  /// Adds to the gradient of W; d_hidden is overwritten, with this rank's share of a sum over tp.
  void backward(const AnyView& d_hidden) {
    const GemmShape of_weight = weight_.next_gradient_shape();
    const AnyView sum = type_ == wide_
                            ? d_hidden
                            : context_.scratch.make(wide_, d_hidden.extent(0), d_hidden.extent(1));
    for (std::int64_t first = 0; first < vocabulary_; first += kBlockColumns) {
      backward_block(first, of_weight, sum);
    }
    if (type_ != wide_) ops::cast(context_.exec, sum, d_hidden);
  }

 private:
  std::int64_t rows() const { return hidden_.extent(0); }
  std::int64_t columns(std::int64_t first) const {
    return std::min(kBlockColumns, vocabulary_ - first);
  }
  AnyView make_statistics(std::int64_t parts) const {
    return context_.scratch.make(wide_, parts * rows(), 3);
  }
  AnyView statistics_of(std::int64_t first) const {
    return statistics_.slice(first / kBlockColumns * rows(), rows());
  }
  AnyView terms_of(std::int64_t first) const {
    return terms_.slice(first * rows(), columns(first) * rows()).reshape(rows(), columns(first));
  }
  /// Number of a column in the whole vocabulary.
  std::int64_t in_whole(std::int64_t first) const { return weight_.shard().offset[0] + first; }

  void forward_block(std::int64_t first) const {
    const AnyView logits =
        logits_.empty() ? terms_of(first)
                        : logits_.slice(0, columns(first) * rows()).reshape(rows(), columns(first));
    const PreparedWeight weight = weight_.prepared(GemmKind::forward).rows(first, columns(first));
    GemmShape shape = weight_.gemm_shape(GemmKind::forward);
    shape.out = static_cast<int>(columns(first));
    shape.result = wide_;
    context_.operations.gemm(context_.exec, shape, {hidden_, &weight, {}, logits, {}});
    if (gradients_) {
      ops::cross_entropy_terms(context_.exec, logits, labels_, in_whole(first),
                               statistics_of(first), terms_of(first));
    } else {
      ops::cross_entropy_statistics(context_.exec, logits, labels_, in_whole(first),
                                    statistics_of(first));
    }
  }

  /// Adds to d_hidden too, but the first block overwrites it.
  void backward_block(std::int64_t first, GemmShape of_weight, const AnyView& d_hidden) const {
    const AnyView d_logits = terms_of(first);
    ops::cross_entropy_gradient(context_.exec, d_logits, statistics_of(first), whole_, labels_,
                                in_whole(first), scale_, d_logits);
    of_weight.out = static_cast<int>(columns(first));
    context_.operations.gemm(
        context_.exec, of_weight,
        {d_logits, nullptr, hidden_, weight_.grad().slice(first, columns(first)), {}});
    const PreparedWeight weight =
        weight_.prepared(GemmKind::data_gradient).rows(first, columns(first));
    GemmShape shape = weight_.gemm_shape(GemmKind::data_gradient);
    shape.out = of_weight.out;
    shape.result = wide_;
    shape.accumulate = first > 0;
    context_.operations.gemm(context_.exec, shape, {d_logits, &weight, {}, d_hidden, {}});
  }

  const Context& context_;
  const Parameter& weight_;
  AnyIn hidden_;
  View1<const int> labels_;
  View1<double> losses_;
  double scale_;
  bool gradients_;
  DType type_, wide_;  ///< of products' operands, and of sums
  std::int64_t vocabulary_;
  AnyView statistics_;  ///< of the blocks, one behind the other
  AnyView whole_;       ///< of whole rows
  AnyView terms_;       ///< blocks (rows, columns) one behind the other; or dlogits
  AnyView logits_;      ///< of one block, where they don't fit in the memory of the terms
};

void sum_d_hidden(const Context& context, const TensorParallel& tp, const AnyIn& partial,
                  const AnyView& d_hidden) {
  if (fault("loss.d_hidden_partial") && tp.ranks() > 1) {
    const std::int64_t rows = d_hidden.extent(0);
    ops::cast(context.exec, partial.slice(tp.shares_rows() ? tp.rank() * rows : 0, rows), d_hidden);
    return;
  }
  tp.leave(context.exec, context.scratch, partial, d_hidden);
}

void run_head(const Context& context, const TensorParallel& tp, const LossHead& head) {
  const ArenaScope scope(context.scratch);
  const Parameter& weight = *head.weight;
  const AnyIn inside = tp.enter(context.exec, context.scratch, head.hidden);
  const bool gradients = !head.d_hidden.empty();
  const AnyView d_inside = gradients ? tp.partial(context.scratch, head.d_hidden) : AnyView();
  const std::int64_t tokens = inside.extent(0), step = rows_of_block(weight, tp.ranks());
  for (std::int64_t first = 0; first < tokens; first += step) {
    const ArenaScope of_block(context.scratch);
    const std::int64_t count = std::min(step, tokens - first);
    RowsOfHead rows(context, head, inside, first, count);
    rows.forward(tp);
    if (gradients) rows.backward(d_inside.slice(first, count));
  }
  if (gradients) sum_d_hidden(context, tp, d_inside, head.d_hidden);
}

/// logits[:, first + v] = part[:, v].
void place_part(const ExecSpace& exec, const AnyIn& part, std::int64_t first,
                const AnyView& logits) {
  const auto columns = std::make_pair(first, first + part.extent(1));
  dispatch(logits.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    Kokkos::deep_copy(exec, Kokkos::subview(logits.as2<X>(), Kokkos::ALL, columns), part.as2<X>());
  });
}

/// A block of rows: the ranks' parts come one behind the other, each (rows, its part), and are put
/// side by side.
void gather_logits(const Context& context, const TensorParallel& tp, const Parameter& weight,
                   const AnyIn& hidden, const AnyView& logits) {
  const ArenaScope scope(context.scratch);
  const std::int64_t rows = hidden.extent(0);
  std::vector<Shard> shards;
  std::vector<std::int64_t> sizes;
  for (int rank = 0; rank < tp.ranks(); ++rank) {
    shards.push_back(Shard::part(weight.spec().shape, 0, rank, tp.ranks()));
    sizes.push_back(rows * shards.back().extent[0]);
  }
  const AnyView own = context.scratch.make(logits.type(), rows, weight.shard().extent[0]);
  const AnyView parts = context.scratch.make(logits.type(), logits.size(), 1);
  part_logits(context, weight, hidden, own);
  tp.group()
      .start_all_gather_rows(context.exec, own.reshape(own.size(), 1), parts, sizes)
      .wait(context.exec);
  std::int64_t taken = 0;
  for (std::size_t rank = 0; rank < shards.size(); ++rank) {
    const AnyIn part = parts.slice(taken, sizes[rank]);
    place_part(context.exec, part.reshape(rows, shards[rank].extent[0]), shards[rank].offset[0],
               logits);
    taken += sizes[rank];
  }
}

}  // namespace

void loss_heads(const Context& context, const TensorParallel& tp, std::span<const LossHead> heads) {
  for (const LossHead& head : heads) run_head(context, tp, head);
}

void head_logits(const Context& context, const TensorParallel& tp, const Parameter& weight,
                 const AnyIn& hidden, const AnyView& logits) {
  if (tp.ranks() == 1) {
    part_logits(context, weight, hidden, logits);
    return;
  }
  const std::int64_t tokens = hidden.extent(0), step = rows_of_block(weight, tp.ranks());
  for (std::int64_t first = 0; first < tokens; first += step) {
    const std::int64_t rows = std::min(step, tokens - first);
    gather_logits(context, tp, weight, hidden.slice(first, rows), logits.slice(first, rows));
  }
}

}  // namespace konclave
