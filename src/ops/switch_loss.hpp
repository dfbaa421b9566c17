#pragma once

#include "tensor/view.hpp"

#include <cstdint>

namespace konclave::ops {

/// What an auxiliary loss needs of its window: slope[w,e] = d loss / d scores[t,e], t in w, and the
/// loss itself. For the switch loss (Fedus et al. 2021) with coefficient c over windows of Tw
/// tokens:
///   loss[w] = E c / (K Tw^2) sum over e of sums[w,e] counts[w,e]
///   slope[w,e] = E c counts[w,e] / (K Tw^2)
/// A perfectly balanced window has loss c. `scale` multiplies slopes only.
/// Shapes  counts, sums, slope (W,E)   loss (W).
void switch_loss(const ExecSpace& exec, std::int64_t window_tokens,
                 const View2<const double>& counts, const View2<const double>& sums, int top_k,
                 double coefficient, double scale, const View1<double>& loss, const AnyView& slope);

}  // namespace konclave::ops
