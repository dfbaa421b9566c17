#include "parallel/tensor_parallel.hpp"

#include "base/error.hpp"
#include "parallel/collectives.hpp"

#include <algorithm>

namespace konclave {

TensorParallel::TensorParallel(const Groups& groups)
    : tp_(groups.tp),
      shares_rows_(groups.parallel.sp && groups.tp->size() > 1),
      overlaps_(shares_rows_ && groups.parallel.overlap_tp) {}

std::int64_t TensorParallel::rows_outside(std::int64_t inside) const {
  if (!shares_rows_) return inside;
  require(inside % ranks() == 0, "rows cannot be shared out evenly over tp");
  return inside / ranks();
}

std::vector<RowBlock> TensorParallel::pieces(std::int64_t outside) const {
  const std::int64_t others = ranks() - 1, most = (kPieces + others - 1) / others;
  const std::int64_t count = std::clamp<std::int64_t>(outside / kLeastRows, 1, most);
  std::vector<RowBlock> pieces;
  for (const std::int64_t rows : equal_shares(outside, count)) {
    pieces.push_back({pieces.empty() ? 0 : pieces.back().first + pieces.back().rows, rows});
  }
  return pieces;
}

AnyIn TensorParallel::enter(const ExecSpace& exec, Arena& arena, const AnyIn& x) const {
  if (!shares_rows_) return x;
  const AnyView all = arena.make(x.type(), rows_inside(x.extent(0)), x.extent(1));
  tp_->start_all_gather(exec, x, all).wait(exec);
  return all;
}

AnyView TensorParallel::partial(Arena& arena, const AnyView& y) const {
  if (ranks() == 1) return y;
  return arena.make(y.type(), rows_inside(y.extent(0)), y.extent(1));
}

void TensorParallel::leave(const ExecSpace& exec, Arena& scratch, const AnyIn& partial,
                           const AnyView& y) const {
  if (ranks() == 1) {
    require(partial.data() == y.data(), "leave: on one rank the result is made in its place");
    return;
  }
  if (shares_rows_) {
    reduce_scatter_in_order(exec, scratch, *tp_, partial, y);
    return;
  }
  all_reduce_in_order(exec, scratch, *tp_, partial, y);
}

}  // namespace konclave
