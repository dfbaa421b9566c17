#pragma once

#include "comm/transport.hpp"
#include "tensor/arena.hpp"

#include <cstdint>
#include <span>

/// Sums over the ranks of a group that have the same bits in every run: each rank adds up its part
/// in the order of ranks, in the accumulation type, and rounds once.
namespace konclave {

/// y = this rank's rows of the sum of all ranks' `partial`: rank r gets rows[r] consecutive ones,
/// those of rank 0 first. Shapes  partial (sum of rows, H)   y (rows[rank], H), of one type. y may
/// be anywhere but in `partial`.
void reduce_scatter_in_order(const ExecSpace& exec, Arena& scratch, const Transport& group,
                             const AnyIn& partial, std::span<const std::int64_t> rows,
                             const AnyView& y);
/// The same with equally many rows for each rank.
void reduce_scatter_in_order(const ExecSpace& exec, Arena& scratch, const Transport& group,
                             const AnyIn& partial, const AnyView& y);

/// y = sum of all ranks' x. One type and shape, whatever it is; y may be x. Each rank sums a slice,
/// and all slices are gathered.
void all_reduce_in_order(const ExecSpace& exec, Arena& scratch, const Transport& group,
                         const AnyIn& x, const AnyView& y);

}  // namespace konclave
