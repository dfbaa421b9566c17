#pragma once

#include "tensor/view.hpp"

#include <cstdint>

/// Rows of tokens in order of their experts, and back. An assignment is one (token, expert) pair.
namespace konclave::ops {

/// Where the row of each assignment goes: experts in ascending order and, within an expert, tokens
/// in ascending order (stable). Integers only: the same for every number of threads.
///
/// Shapes  experts (A): the expert of assignment a of token t, token_offsets(t) <= a <
///         token_offsets(t+1)   token_offsets (T+1)   expert_offsets (E+1): rows of each expert
///         row_of (A): row of an assignment   assignment_of (A): the inverse; empty: not wanted
///         scratch: at least permutation_scratch(T, E) ints.
/// Runs on `exec`; neither allocates nor fences. T and A may be 0.
struct Permutation {
  View1<int> expert_offsets, row_of, assignment_of;
};
std::int64_t permutation_scratch(std::int64_t tokens, int experts);
void permutation(const ExecSpace& exec, const View1<const int>& experts,
                 const View1<const int>& token_offsets, const View1<int>& scratch,
                 const Permutation& out);

/// Bytes that `permutation` moves without the inverse: assignments are read to be counted and once
/// more to be placed, which only counts where no cache keeps them (kNearBytes of ops/rows.hpp).
std::int64_t permutation_bytes(std::int64_t tokens, std::int64_t assignments, int experts);

/// Where the rows of assignments are: that of a is row_of(a) or, with shifts, row_of(a) +
/// shift(experts(a)), so that the rows of an expert are moved together.
struct RowPlaces {
  View1<const int> row_of, experts, shift;  ///< (A), (A), (E); the last two may be empty

  RowPlaces() = default;
  RowPlaces(const View1<const int>& rows) : row_of(rows) {}  // the usual case
  RowPlaces(const View1<const int>& rows, const View1<const int>& of, const View1<const int>& by)
      : row_of(rows), experts(of), shift(by) {}

  std::int64_t assignments() const { return static_cast<std::int64_t>(row_of.size()); }
};

/// A value for each row, and the same in the order of assignments.
struct RowValues {
  AnyIn from;  ///< (A) or, of some rows, (R), of accumulation type; empty: no values
  AnyView to;  ///< overwritten
};

/// Rows from `first` on that have memory of their own, and their values where there are any.
struct RowTarget {
  std::int64_t first = 0;
  AnyView rows, values;  ///< (R,H), (R)
};

/// y[place(a) - first,:] = x[t,:] over the assignments a of each token t whose places are among the
/// R from `first` on, and those of `other` likewise, which are different ones. A token's row is
/// read once and written to all of its places. With values, in the same pass:
/// values.to[place(a) - first] = values.from[a].
/// Shapes  x (T,H)   token_offsets (T+1)   places (A)   y (R,H)   values: from (A), to (R).
void permute_rows(const ExecSpace& exec, const AnyIn& x, const View1<const int>& token_offsets,
                  const RowPlaces& places, std::int64_t first, const AnyView& y,
                  const RowValues& values = {}, const RowTarget& other = {});

/// y[t,:] = residual[t,:] + sum of x[place(a),:] over the assignments a of token t, in their order
/// (ascending expert) and the residual last, in fp32 or better, rounded once.
/// With values, in the same pass: values.to[a] = values.from[place(a)].
/// Shapes  x (R,H)   token_offsets (T+1)   places (A), below R   residual, y (T,H); y may be the
///         residual, and an empty one stands for zero   values: from (R), to (A).
void combine_rows(const ExecSpace& exec, const AnyIn& x, const View1<const int>& token_offsets,
                  const RowPlaces& places, const AnyIn& residual, const AnyView& y,
                  const RowValues& values = {});

/// Bytes that permute_rows of all rows moves, and combine_rows without a residual: A rows on one
/// side and T on the other, the indices, with shifts also the experts, and with values a value in
/// and out for each assignment.
struct PermuteExtras {
  bool values = false, shifts = false;
};
std::int64_t permute_bytes(std::int64_t tokens, std::int64_t assignments, std::int64_t hidden,
                           DType type, PermuteExtras with);

/// y[i] = x[source[i]], of accumulation type.
void gather_values(const ExecSpace& exec, const AnyIn& x, const View1<const int>& source,
                   const AnyView& y);

}  // namespace konclave::ops
