#pragma once

#include "tensor/view.hpp"

namespace konclave::ops {

/// Rotates pairs (i, i + D/2) of each head x of q and k by the angle of the row's position:
///   x'[i] = x[i] cos - x[i+D/2] sin,   x'[i+D/2] = x[i+D/2] cos + x[i] sin
/// with cos, sin of row positions(t) of the tables. `inverse` turns back: the gradient.
///
/// Shapes  q (T, heads*D) and k (T, heads*D), in place, each with its own number of heads; k may be
///         empty   cosine, sine (P, D/2) in the accumulation type.
/// Runs on `exec`; neither allocates nor fences. Positions must be below P.
void rotate(const ExecSpace& exec, const View1<const int>& positions, const AnyIn& cosine,
            const AnyIn& sine, bool inverse, const AnyView& q, const AnyView& k);

}  // namespace konclave::ops
