#include "parallel/collectives.hpp"

#include "base/error.hpp"
#include "base/fault.hpp"
#include "ops/elementwise.hpp"

#include <numeric>
#include <vector>

namespace konclave {

namespace {

AnyView flattened(const AnyView& view) {
  return {view.type(), view.data(), {view.size(), 1, 1}, 1};
}

/// y = x[0] + x[1] + ... in this order, rounded once.   Shapes  x (R, elements of y)   y (any).
void sum_in_order(const ExecSpace& exec, Arena& scratch, const AnyIn& x, const AnyView& y) {
  const DType accumulation = accum_type(y.type());
  const AnyView sum =
      y.type() == accumulation ? flattened(y) : scratch.make(accumulation, y.size());
  ops::fill_zero(exec, sum);
  const bool lose_last = fault("grad_reduce.last_rank_lost");
  ops::accumulate_rows(exec, x.slice(0, lose_last ? x.extent(0) - 1 : x.extent(0)), sum);
  if (sum.data() != y.data()) ops::cast(exec, sum, y);
}

/// As equal as can be: rank r has elements r * size / ranks on.
std::vector<std::int64_t> slices_of(std::int64_t size, std::int64_t ranks) {
  std::vector<std::int64_t> counts;
  for (std::int64_t r = 0; r < ranks; ++r) {
    counts.push_back((r + 1) * size / ranks - r * size / ranks);
  }
  return counts;
}

}  // namespace

void reduce_scatter_in_order(const ExecSpace& exec, Arena& scratch, const Transport& group,
                             const AnyIn& partial, std::span<const std::int64_t> rows,
                             const AnyView& y) {
  const auto ranks = static_cast<std::size_t>(group.size());
  require(rows.size() == ranks && rows[static_cast<std::size_t>(group.rank())] == y.extent(0) &&
              partial.extent(0) == std::reduce(rows.begin(), rows.end()) &&
              partial.extent(1) == y.extent(1) && partial.rank() == 2 && y.rank() == 2 &&
              partial.type() == y.type(),
          "reduce_scatter of group '" + group.name() + "': want partial (rows of all, H) and y (" +
              "rows of this rank, H), these are " + partial.describe() + " and " + y.describe());
  const ArenaScope scope(scratch);
  const std::vector<std::int64_t> mine(ranks, y.extent(0));
  const AnyView received = scratch.make(y.type(), group.size() * y.extent(0), y.extent(1));
  group.start_all_to_all(exec, partial, rows, received, mine).wait(exec);
  sum_in_order(exec, scratch, received.reshape(group.size(), y.size()), y);
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
  const std::vector<std::int64_t> slices = slices_of(x.size(), group.size());
  const AnyView sum = scratch.make(y.type(), slices[static_cast<std::size_t>(group.rank())], 1);
  reduce_scatter_in_order(exec, scratch, group, x.reshape(x.size(), 1), slices, sum);
  group.start_all_gather_rows(exec, sum, y.reshape(y.size(), 1), slices).wait(exec);
}

}  // namespace konclave
