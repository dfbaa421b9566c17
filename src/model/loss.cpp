#include "model/loss.hpp"

#include "base/fault.hpp"
#include "ops/cross_entropy.hpp"
#include "ops/elementwise.hpp"

#include <algorithm>
#include <utility>
#include <vector>

namespace konclave {

namespace {

/// Logits held at a time: large enough for efficient products, small beside the activations.
constexpr std::int64_t kBlockElements = std::int64_t{1} << 22;

/// Rows of a block, the same on all ranks: by the widest part of the vocabulary.
std::int64_t rows_of_block(const Parameter& weight, int ranks) {
  const std::int64_t widest = (weight.spec().shape[0] + ranks - 1) / ranks;
  return std::clamp<std::int64_t>(kBlockElements / widest, 16, 1024);
}

/// Logits of this rank's part of the vocabulary.
void part_logits(const Context& context, const Parameter& weight, const AnyIn& hidden,
                 const AnyView& logits) {
  GemmShape shape = weight.gemm_shape(GemmKind::forward);
  shape.result = logits.type();
  context.operations.gemm(context.exec, shape,
                          {hidden, &weight.prepared(GemmKind::forward), {}, logits, {}});
}

/// A block of rows of a head.
struct Block {
  AnyIn hidden;
  View1<const int> labels;
  View1<double> losses;
  AnyView logits;    ///< of this rank's part of the vocabulary
  AnyView d_logits;  ///< may be the memory of the logits; empty: no gradients are wanted
  double scale = 1;
};

/// Losses and gradient of the logits where this rank has them all.
void whole_vocabulary(const ExecSpace& exec, const Block& block) {
  if (block.d_logits.empty()) {
    ops::cross_entropy(exec, block.logits, block.labels, block.losses);
  } else {
    ops::cross_entropy_gradient(exec, block.logits, block.labels, block.scale, block.losses,
                                block.d_logits);
  }
}

/// The same where each rank of tp has those from its `first` on.
void parted_vocabulary(const Context& context, const TensorParallel& tp, std::int64_t first,
                       const Block& block) {
  const std::int64_t rows = block.logits.extent(0);
  const auto statistics = [&](std::int64_t count) {
    return context.scratch.make(block.logits.type(), count, 3);
  };
  const AnyView own = statistics(rows), parts = statistics(rows * tp.ranks()),
                whole = statistics(rows);
  ops::cross_entropy_statistics(context.exec, block.logits, block.labels, first, own);
  tp.group().start_all_gather(context.exec, own, parts).wait(context.exec);
  ops::merge_cross_entropy(context.exec, fault("loss.local_vocabulary") ? own : parts, block.labels,
                           whole, block.losses);
  if (block.d_logits.empty()) return;
  ops::cross_entropy_part_gradient(context.exec, block.logits, whole, block.labels, first,
                                   block.scale, block.d_logits);
}

/// Adds to the gradient of W; d_hidden is overwritten, with this rank's share of a sum over tp.
void block_gradients(const Context& context, const Parameter& weight, const Block& block,
                     const AnyView& d_hidden) {
  context.operations.gemm(context.exec, weight.gemm_shape(GemmKind::weight_gradient),
                          {block.d_logits, nullptr, block.hidden, weight.grad(), {}});
  context.operations.gemm(
      context.exec, weight.gemm_shape(GemmKind::data_gradient),
      {block.d_logits, &weight.prepared(GemmKind::data_gradient), {}, d_hidden, {}});
}

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
  const DType type = inside.type();
  const std::int64_t tokens = inside.extent(0), vocabulary = weight.shard().extent[0];
  const std::int64_t step = rows_of_block(weight, tp.ranks());
  for (std::int64_t first = 0; first < tokens; first += step) {
    const ArenaScope of_block(context.scratch);
    const std::int64_t rows = std::min(step, tokens - first);
    const auto range = std::make_pair(first, first + rows);
    const AnyView logits = context.scratch.make(accum_type(type), rows, vocabulary);
    Block block{inside.slice(first, rows),
                Kokkos::subview(head.labels, range),
                Kokkos::subview(head.losses, range),
                logits,
                {},
                head.scale};
    if (gradients) {
      block.d_logits =
          type == logits.type() ? logits : context.scratch.make(type, rows, vocabulary);
    }
    part_logits(context, weight, block.hidden, logits);
    if (tp.ranks() == 1) {
      whole_vocabulary(context.exec, block);
    } else {
      parted_vocabulary(context, tp, weight.shard().offset[0], block);
    }
    if (gradients) block_gradients(context, weight, block, d_inside.slice(first, rows));
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
