#pragma once

#include "tensor/view.hpp"

namespace konclave::ops {

/// y[t,:] = x[source[t],:], and zeros where source[t] < 0.   Shapes x (R,H), source (T), y (T,H) of
/// x's type. Used for the embedding (source: tokens, below 0 where another rank has the row), for
/// permutation and for the gradient of combine.
void gather_rows(const ExecSpace& exec, const AnyIn& x, const View1<const int>& source,
                 const AnyView& y);

/// dw[id[r],:] += sum of dy[order[i],:] for run_offsets[r] <= i < run_offsets[r+1]
///
/// The gradient of an embedding: `order` lists rows sorted by token (stable), and run r is the rows
/// of one token, ids(r); rows of tokens that dw does not have are not listed. Each row of dw is
/// written by one thread, rows in ascending order, so nothing depends on the number of threads.
/// Shapes  dy (T,H)   order (N), N <= T   run_offsets (R+1)   ids (R)   dw (V,H) in the
/// accumulation type.
void embedding_gradient(const ExecSpace& exec, const AnyIn& dy, const View1<const int>& order,
                        const View1<const int>& run_offsets, const View1<const int>& ids,
                        const AnyView& dw);

}  // namespace konclave::ops
