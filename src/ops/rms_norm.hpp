#pragma once

#include "tensor/view.hpp"

#include <cstdint>

namespace konclave::ops {

/// y[t,h] = x[t,h] * r[t] * w[h],   r[t] = 1 / sqrt(mean over h of x[t,h]^2 + eps)
///
/// Shapes  x, y (T,H) of one type   w (H), r (T) in its accumulation type.
/// Runs on `exec`; neither allocates nor fences. T may be 0; y may be x.
void rms_norm_forward(const ExecSpace& exec, const AnyIn& x, const AnyIn& w, double eps,
                      const AnyView& r, const AnyView& y);

/// The norm of a residual stream behind a branch: sum = x + addend, rounded once, and y and r of
/// `sum` as above, in one pass over memory. sum may be x or addend, but not y.
void add_rms_norm_forward(const ExecSpace& exec, const AnyIn& x, const AnyIn& addend,
                          const AnyIn& w, double eps, const AnyView& sum, const AnyView& r,
                          const AnyView& y);

/// y of x once more, to the same bits, by the r that rms_norm_forward has left. y may be x.
void rms_norm_again(const ExecSpace& exec, const AnyIn& x, const AnyIn& w, const AnyIn& r,
                    const AnyView& y);

/// With g = dy w:  dx[t,h] = residual[t,h] + r (g[t,h] - x[t,h] r^2 mean over h of g x),
///                 dw[h] += sum over t of dy[t,h] x[t,h] r[t]
///
/// `residual` is the gradient that passes by the norm; an empty view stands for zero. dw is in the
/// accumulation type; its sum goes by blocks of rows, the same for every number of threads. dx may
/// be dy or residual, but not x. scratch: rms_norm_scratch(T, H) elements of w's type, rank 1.
std::int64_t rms_norm_scratch(std::int64_t rows, std::int64_t hidden);
void rms_norm_backward(const ExecSpace& exec, const AnyIn& x, const AnyIn& w, const AnyIn& r,
                       const AnyIn& dy, const AnyIn& residual, const AnyView& scratch,
                       const AnyView& dw, const AnyView& dx);

}  // namespace konclave::ops
