#pragma once

#include "tensor/view.hpp"

#include <cstdint>

/// Kernels of the top-k softmax router. Everything is in the router's type A (fp32, or fp64).
namespace konclave::ops {

/// The K experts of each token and the weight of each.
///
///   scores[t,e] = exp(l[t,e]) / sum over j of exp(l[t,j]),   lse[t] = log of that sum
///   chosen: the K largest logits of the row, equal ones by lowest expert index
///   weights[t,k] = scores at the chosen experts when `pre_softmax` (they sum to less than 1), else
///                  the softmax over the chosen logits alone (they sum to 1)
///
/// experts[t,:] is in ascending order of expert, so sums over a token's experts have one order.
/// Shapes  l, scores (T,E)   lse (T)   experts, weights (T,K).    A NaN logit counts as -inf in the
/// choice, so that experts stay valid; the weights carry it on.
/// Runs on `exec`; neither allocates nor fences. T may be 0; 1 <= K <= E.
struct Routed {
  AnyView scores, lse;
  View2<int> experts;
  AnyView weights;
};
void route(const ExecSpace& exec, const AnyIn& l, bool pre_softmax, const Routed& routed);

/// Bytes that route has to move for logits of `type`: they are read once, all results written once.
std::int64_t router_bytes(std::int64_t tokens, int experts, int top_k, DType type);

/// Counts over a window of tokens, for every window w (rows offsets(w) .. offsets(w+1)-1):
///   counts[w,e] = tokens of w that chose e,   sums[w,e] = sum over t in w of scores[t,e]
/// Both are doubles: they may be parts of what several ranks add up.
/// Shapes  scores (T,E)   experts (T,K)   offsets (W+1)   counts, sums (W,E).
void window_statistics(const ExecSpace& exec, const AnyIn& scores, const View2<const int>& experts,
                       const View1<const int>& offsets, const View2<double>& counts,
                       const View2<double>& sums);

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

/// dl, the gradient of all that hangs on the logits:
///   of the weights (dweights given), of the auxiliary loss (slope of the token's window), of the
///   z-loss: z_scale * 2 lse[t] scores[t,e]
/// Shapes  dweights (T,K)   offsets (W+1)   slope (W,E)   dl (T,E), overwritten.
struct RouteGradient {
  AnyIn scores, lse, weights, dweights;
  View2<const int> experts;
  View1<const int> offsets;
  AnyIn slope;
  double z_scale = 0;
  bool pre_softmax = false;
};
void route_backward(const ExecSpace& exec, const RouteGradient& in, const AnyView& dl);

}  // namespace konclave::ops
