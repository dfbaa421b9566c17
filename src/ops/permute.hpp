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
///         row_of (A): row of an assignment   token_of, assignment_of (A): of a row
///         scratch: at least permutation_scratch(T, E) ints.
/// Runs on `exec`; neither allocates nor fences. T and A may be 0.
struct Permutation {
  View1<int> expert_offsets, row_of, token_of, assignment_of;
};
std::int64_t permutation_scratch(std::int64_t tokens, int experts);
void permutation(const ExecSpace& exec, const View1<const int>& experts,
                 const View1<const int>& token_offsets, const View1<int>& scratch,
                 const Permutation& out);

/// y[t,:] = residual[t,:] + sum of x[row_of(a),:] over the assignments a of token t, in their order
/// (ascending expert) and the residual last, in fp32 or better, rounded once.
/// Shapes  x (A,H)   token_offsets (T+1)   row_of (A)   residual, y (T,H); y may be the residual,
/// and
///         an empty one stands for zero.
void combine_rows(const ExecSpace& exec, const AnyIn& x, const View1<const int>& token_offsets,
                  const View1<const int>& row_of, const AnyIn& residual, const AnyView& y);

/// Bytes that cannot be saved when `rows` rows are put in another order (gather_rows of
/// ops/embedding.hpp): each is read and written once, and so many indices are read.
std::int64_t permute_bytes(std::int64_t rows, std::int64_t hidden, DType type);
/// The same for combine_rows without a residual.
std::int64_t combine_bytes(std::int64_t tokens, std::int64_t assignments, std::int64_t hidden,
                           DType type);

/// y[i] = x[source[i]], of accumulation type: weights in row order, their gradients in token order.
void gather_values(const ExecSpace& exec, const AnyIn& x, const View1<const int>& source,
                   const AnyView& y);

}  // namespace konclave::ops
