#pragma once

#include "comm/transport.hpp"
#include "tensor/arena.hpp"

#include <cstdint>
#include <span>
#include <vector>

/// Sums over the ranks of a group that have the same bits in every run: each rank adds up its part
/// in the order of ranks, in the accumulation type, and rounds once. Beside them a shift.
namespace konclave {

/// receive = what the rank `distance` before this one sends, which sends to the one `distance`
/// behind, round the group: 0 < distance < size. Collective; as many rows on all ranks.
Request start_shift(const ExecSpace& exec, const Transport& group, int distance, const AnyIn& send,
                    const AnyView& receive);

/// `size` elements shared out over `ranks`, those of rank 0 first: as equal as can be in multiples
/// of `grain`; the last share may be cut short, and shares may be empty.
std::vector<std::int64_t> equal_shares(std::int64_t size, std::int64_t ranks,
                                       std::int64_t grain = 1);

/// y = x[0] + x[1] + ... in this order, added in the accumulation type and rounded once.
/// Shapes  x (R, elements of y)   y (any).
void sum_in_order(const ExecSpace& exec, Arena& scratch, const AnyIn& x, const AnyView& y);

/// The first half of reduce_scatter_in_order: this rank's rows of the partial results of all ranks,
/// one result behind the other; sum_in_order adds them up. Shapes  partial (rows of all blocks, H)
/// received (R rows[rank], H).
Request start_reduce_scatter(const ExecSpace& exec, const Transport& group, const AnyIn& partial,
                             const RowBlocks& blocks, const AnyView& received);

/// y = this rank's rows of the sum of all ranks' `partial`: rank r gets rows[r] consecutive ones,
/// those of rank 0 first. Shapes  partial (sum of rows, H)   y (rows[rank], H), of one type, or y
/// of the accumulation type of `partial`. y may be anywhere but in `partial`.
void reduce_scatter_in_order(const ExecSpace& exec, Arena& scratch, const Transport& group,
                             const AnyIn& partial, std::span<const std::int64_t> rows,
                             const AnyView& y);
/// The same for rows that lie in blocks: rank r gets those of blocks[r], one behind the other.
void reduce_scatter_in_order(const ExecSpace& exec, Arena& scratch, const Transport& group,
                             const AnyIn& partial, const RowBlocks& blocks, const AnyView& y);
/// The same with equally many rows for each rank.
void reduce_scatter_in_order(const ExecSpace& exec, Arena& scratch, const Transport& group,
                             const AnyIn& partial, const AnyView& y);

/// y = sum of all ranks' x. One type and shape, whatever it is; y may be x. Each rank sums a slice,
/// and all slices are gathered.
void all_reduce_in_order(const ExecSpace& exec, Arena& scratch, const Transport& group,
                         const AnyIn& x, const AnyView& y);

}  // namespace konclave
