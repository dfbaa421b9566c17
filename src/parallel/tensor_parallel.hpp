#pragma once

#include "comm/transport.hpp"
#include "parallel/groups.hpp"
#include "parallel/shard.hpp"
#include "tensor/arena.hpp"

#include <cstdint>
#include <memory>
#include <vector>

namespace konclave {

/// The ranks of tp and the ways between the two regions of a layer: outside, where norms and
/// residuals are, and inside, where each rank has all rows and a part of heads, of the ffn size or
/// of the vocabulary. With sequence parallelism the rows outside are shared out, T / tp consecutive
/// ones for each rank; without it every rank has them all.
///
/// Backward goes the same ways: the gradient of `enter` is `leave`, and that of `leave` is `enter`.
/// These go at once; layers with products on both sides of a way use Entering and Leaving.
class TensorParallel {
 public:
  explicit TensorParallel(const Groups& groups);

  int rank() const { return tp_->rank(); }
  int ranks() const { return tp_->size(); }
  const Transport& group() const { return *tp_; }
  /// Whether the rows outside are shared out.
  bool shares_rows() const { return shares_rows_; }
  /// Whether layers work on rows that are there while others are on their way (Entering, Leaving).
  bool overlaps() const { return overlaps_; }

  std::int64_t rows_inside(std::int64_t outside) const {
    return shares_rows_ ? outside * ranks() : outside;
  }
  std::int64_t rows_outside(std::int64_t inside) const;

  /// With overlap: what of a rank's rows outside goes on its way together. Products of the last
  /// piece to arrive, and of the first to leave, hide nothing. So pieces are small, about kPieces
  /// from all others together, but have kLeastRows or more: products of fewer are slow for what
  /// they do (bf16 on AMX, cold weights: 94 % of the machine's limit with 64 rows, 72 % with 32).
  std::vector<RowBlock> pieces(std::int64_t outside) const;
  static constexpr std::int64_t kPieces = 8, kLeastRows = 64;

  /// All rows of x: gathered into memory of `arena`, or x itself where every rank has them.
  AnyIn enter(const ExecSpace& exec, Arena& arena, const AnyIn& x) const;
  /// Where a result that is to be summed goes: y itself on one rank, else memory of `arena`.
  AnyView partial(Arena& arena, const AnyView& y) const;
  /// y = this rank's rows of the sum of all ranks' partial results.
  void leave(const ExecSpace& exec, Arena& scratch, const AnyIn& partial, const AnyView& y) const;

 private:
  std::shared_ptr<const Transport> tp_;
  bool shares_rows_, overlaps_;
};

}  // namespace konclave
