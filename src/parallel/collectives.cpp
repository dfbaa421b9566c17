#include "parallel/collectives.hpp"

#include "base/error.hpp"
#include "base/fault.hpp"
#include "ops/elementwise.hpp"

#include <algorithm>
#include <vector>

namespace konclave {

void sum_in_order(const ExecSpace& exec, Arena& scratch, const AnyIn& x, const AnyView& y) {
  const DType accumulation = accum_type(y.type());
  const AnyView sum = y.type() == accumulation ? y.flatten() : scratch.make(accumulation, y.size());
  ops::fill_zero(exec, sum);
  const bool lose_last = fault("grad_reduce.last_rank_lost");
  ops::accumulate_rows(exec, x.slice(0, lose_last ? x.extent(0) - 1 : x.extent(0)), sum);
  if (sum.data() != y.data()) ops::cast(exec, sum, y);
}

Request start_shift(const ExecSpace& exec, const Transport& group, int distance, const AnyIn& send,
                    const AnyView& receive) {
  const int ranks = group.size();
  require(distance > 0 && distance < ranks && send.extent(0) == receive.extent(0),
          "shift of group '" + group.name() + "' by " + std::to_string(distance) + ": " +
              send.describe() + " is sent and " + receive.describe() + " received");
  RowBlocks sent(static_cast<std::size_t>(ranks)), received(sent);
  const auto rank_at = [&](int offset) {
    return static_cast<std::size_t>((group.rank() + ranks + offset) % ranks);
  };
  sent[rank_at(distance)] = {{0, send.extent(0)}};
  received[rank_at(-distance)] = {{0, receive.extent(0)}};
  return group.start_all_to_all_blocks(exec, send, sent, receive, received);
}

std::vector<std::int64_t> equal_shares(std::int64_t size, std::int64_t ranks, std::int64_t grain) {
  const std::int64_t grains = (size + grain - 1) / grain;
  std::vector<std::int64_t> counts;
  for (std::int64_t r = 0; r < ranks; ++r) {
    const std::int64_t first = std::min(size, r * grains / ranks * grain);
    counts.push_back(std::min(size, (r + 1) * grains / ranks * grain) - first);
  }
  return counts;
}

Request start_reduce_scatter(const ExecSpace& exec, const Transport& group, const AnyIn& partial,
                             const RowBlocks& blocks, const AnyView& received) {
  const std::vector<RowBlock> mine = packed(blocks[static_cast<std::size_t>(group.rank())]);
  RowBlocks places(blocks.size(), mine);
  std::int64_t first = 0;
  for (std::vector<RowBlock>& of_rank : places) {
    for (RowBlock& block : of_rank) block.first += first;
    first += rows_of(mine);
  }
  return group.start_all_to_all_blocks(exec, partial, blocks, received, places);
}

void reduce_scatter_in_order(const ExecSpace& exec, Arena& scratch, const Transport& group,
                             const AnyIn& partial, const RowBlocks& blocks, const AnyView& y) {
  const auto ranks = static_cast<std::size_t>(group.size()),
             rank = static_cast<std::size_t>(group.rank());
  require(blocks.size() == ranks && rows_of(blocks[rank]) == y.extent(0) &&
              partial.extent(0) == rows_of(blocks) && partial.extent(1) == y.extent(1) &&
              partial.rank() == 2 && y.rank() == 2 &&
              (partial.type() == y.type() || accum_type(partial.type()) == y.type()),
          "reduce_scatter of group '" + group.name() + "': want partial (rows of all, H) and y (" +
              "rows of this rank, H), these are " + partial.describe() + " and " + y.describe());
  const ArenaScope scope(scratch);
  const AnyView received = scratch.make(partial.type(), group.size() * y.extent(0), y.extent(1));
  start_reduce_scatter(exec, group, partial, blocks, received).wait(exec);
  sum_in_order(exec, scratch, received.reshape(group.size(), y.size()), y);
}

void reduce_scatter_in_order(const ExecSpace& exec, Arena& scratch, const Transport& group,
                             const AnyIn& partial, std::span<const std::int64_t> rows,
                             const AnyView& y) {
  reduce_scatter_in_order(exec, scratch, group, partial, consecutive_blocks(rows), y);
}

void reduce_scatter_in_order(const ExecSpace& exec, Arena& scratch, const Transport& group,
                             const AnyIn& partial, const AnyView& y) {
  const std::vector<std::int64_t> rows(static_cast<std::size_t>(group.size()), y.extent(0));
  reduce_scatter_in_order(exec, scratch, group, partial, rows, y);
}

void all_reduce_in_order(const ExecSpace& exec, Arena& scratch, const Transport& group,
                         const AnyIn& x, const AnyView& y) {
  require(x.type() == y.type() && same_shape(x, y), "all_reduce of group '" + group.name() +
                                                        "': x and y differ, " + x.describe() +
                                                        " and " + y.describe());
  const ArenaScope scope(scratch);
  const std::vector<std::int64_t> slices = equal_shares(x.size(), group.size());
  const AnyView sum = scratch.make(y.type(), slices[static_cast<std::size_t>(group.rank())], 1);
  reduce_scatter_in_order(exec, scratch, group, x.reshape(x.size(), 1), slices, sum);
  group.start_all_gather_rows(exec, sum, y.reshape(y.size(), 1), slices).wait(exec);
}

}  // namespace konclave
