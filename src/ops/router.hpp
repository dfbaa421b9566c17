#pragma once

#include "tensor/view.hpp"

#include <cstdint>

/// Kernels of the top-k router. Everything is in the router's type A (fp32 or fp64).
namespace konclave::ops {

enum class ScoreFunction { softmax, sigmoid };

/// How logits become scores, a choice of K experts, and weights.
struct RouteRule {
  ScoreFunction score = ScoreFunction::softmax;
  bool pre_softmax = false;
  int num_groups = 0;   ///< contiguous groups of experts; 0 or 1: no groups
  int group_top_k = 0;  ///< groups that a token may choose in
  double scaling_factor = 1;
};

/// What experts are chosen by, if not by the scores alone.
struct RouteChoice {
  View1<const float> bias = {};  ///< (E), added to the scores for the choice; empty: none
  AnyIn preferences = {};        ///< (T,E) in the router's type, instead of scores; empty: none
  bool given = false;            ///< Routed::experts hold the choice already
};

/// The K experts of each token and the weight of each.
///
///   softmax:  scores[t,e] = exp(l[t,e]) / sum over j of exp(l[t,j])
///   sigmoid:  scores[t,e] = s[t,e] / (sum over j of s[t,j] + 1e-20),  s = 1 / (1 + exp(-l))
///   lse[t] = log of the sum over j of exp(l[t,j])
///   chosen: the K largest values v of the row, equal ones by lowest expert index; v is
///     the preferences where there are any; else, with a bias, scores (sigmoid: s) + bias; else s
///     of a sigmoid, the softmax when `pre_softmax` and by groups, or else the logits
///   groups: only the experts of the `group_top_k` groups of largest value can be chosen, equal
///     ones by lowest group; the value of a group is the sum of its best K / group_top_k v
///   weights[t,k] = scaling_factor times, at the chosen experts,
///     softmax:  the scores when `pre_softmax` (they sum to less than 1), else the softmax over
///               the chosen logits alone (they sum to 1)
///     sigmoid:  s / (sum of the chosen s + 1e-20); s itself when K = 1
///
/// experts[t,:] is in ascending order of expert, so sums over a token's experts have one order.
/// Shapes  l, scores (T,E)   lse (T)   experts, weights (T,K).    A v that is NaN counts as -inf in
/// the choice, so that experts stay valid; the weights carry it on.
struct Routed {
  AnyView scores, lse;
  View2<int> experts;
  AnyView weights;
};

/// Sums over the rows of each sequence q, offsets(q) .. offsets(q+1)-1 of this rank, taken in one
/// order; written whole. The sequences together have all rows.
struct RouteStatistics {
  View1<const int> offsets;  ///< (Q+1)
  View2<double> counts;   ///< (Q,E): tokens whose K largest scores include e, whatever was chosen
  View2<double> sums;     ///< (Q,E): scores
  View2<double> chosen;   ///< (Q,E): tokens that chose e; may be `counts` where both are the same
  View1<double> squares;  ///< (Q): lse^2
  View1<double> entropy;  ///< (Q): - sum over e of scores log(scores)
  View1<double> scratch;  ///< route_scratch(T, Q, E) doubles or more, to work in
  View2<int> largest;     ///< (T,K), to work in where chooses_by_more_than_scores; else empty
};
std::int64_t route_scratch(std::int64_t tokens, std::int64_t sequences, int experts);

/// Whether the choice may be another than the K largest scores, so that `counts` and `chosen` are
/// not the same.
bool chooses_by_more_than_scores(const RouteRule& rule, const RouteChoice& choice);

/// Runs on `exec`; neither allocates nor fences. T may be 0; 1 <= K <= E; with groups E is a
/// multiple of num_groups and group_top_k <= K <= group_top_k E / num_groups.
void route(const ExecSpace& exec, const AnyIn& l, const RouteRule& rule, const RouteChoice& choice,
           const Routed& routed, const RouteStatistics& statistics);

/// Bytes that route has to move for logits of `type`: they are read once, all results written once.
std::int64_t router_bytes(std::int64_t tokens, int experts, int top_k, DType type);

/// dl, the gradient of all that hangs on the logits:
///   of the weights (dweights given), of the auxiliary losses (slope of the token's sequence: d
///   loss / d scores), of the z-loss: z_scale * 2 lse[t] softmax(l[t,:])[e]
/// Shapes  dweights (T,K)   offsets (Q+1)   slope (Q,E)   dl (T,E), overwritten.
struct RouteGradient {
  AnyIn of_logits;  ///< (T,E): scores of a softmax, logits of a sigmoid
  AnyIn lse, weights, dweights;
  View2<const int> experts;
  View1<const int> offsets;
  AnyIn slope;
  double z_scale = 0;
  RouteRule rule;
};
void route_backward(const ExecSpace& exec, const RouteGradient& in, const AnyView& dl);

}  // namespace konclave::ops
