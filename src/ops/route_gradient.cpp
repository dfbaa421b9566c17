#include "ops/fast_math.hpp"
#include "ops/route_rows.hpp"
#include "ops/router.hpp"

namespace konclave::ops {

namespace {

template <typename A> struct TypedGradient {
  View2<const A> of_logits;
  View1<const A> lse;
  View2<const A> weights, dweights;
  View2<const int> experts;
  View2<const A> slope;
  A z_scale, scaling_factor;
  bool pre_softmax;
};

/// sum over k of weights dweights: what the normalisation of weights takes off each of them.
template <typename A> KOKKOS_INLINE_FUNCTION A weighted_slope(const TypedGradient<A>& in, int t) {
  A sum = 0;
  for (int k = 0; k < in.experts.extent_int(1); ++k) sum += in.weights(t, k) * in.dweights(t, k);
  return sum;
}

template <typename A>
KOKKOS_INLINE_FUNCTION void softmax_row(const TypedGradient<A>& in, int t, const A* slope, A* out) {
  const int experts = in.of_logits.extent_int(1), top_k = in.experts.extent_int(1);
  const A* const score = &in.of_logits(t, 0);
  const A mean = lane_sum<A>(experts, [=](int e) { return score[e] * slope[e]; });
  const A of_weights = weighted_slope(in, t);
  const A common = in.pre_softmax ? mean + of_weights : mean;
  const A z = 2 * in.z_scale * in.lse(t);
  for (int e = 0; e < experts; ++e) out[e] = score[e] * (slope[e] - common + z);
  const A centre = in.pre_softmax ? A(0) : of_weights / in.scaling_factor;
  for (int k = 0; k < top_k; ++k) {
    out[in.experts(t, k)] += in.weights(t, k) * (in.dweights(t, k) - centre);
  }
}

/// With s = sigmoid(l): scores = s / S, S the sum of all, and weights = factor s / D, D the sum of
/// the chosen ones, or 1 for a single one. dl = s (1 - s) ds.
template <typename A>
KOKKOS_INLINE_FUNCTION void sigmoid_row(const TypedGradient<A>& in, int t, const A* slope, A* out) {
  const int experts = in.of_logits.extent_int(1), top_k = in.experts.extent_int(1);
  const A* const l = &in.of_logits(t, 0);
  const auto s = [=](int e) { return 1 / (1 + fast_exp(-l[e])); };
  for (int e = 0; e < experts; ++e) out[e] = s(e);
  const A all = lane_sum<A>(experts, [=](int e) { return out[e]; }) + static_cast<A>(kTinySum);
  const A mean = lane_sum<A>(experts, [=](int e) { return out[e] * slope[e]; }) / all;
  A chosen = static_cast<A>(kTinySum);
  for (int k = 0; k < top_k; ++k) chosen += out[in.experts(t, k)];
  const A divisor = top_k > 1 ? chosen : A(1), off = top_k > 1 ? weighted_slope(in, t) : A(0);
  const A lse = in.lse(t), z = 2 * in.z_scale * lse;
  for (int e = 0; e < experts; ++e) {
    out[e] = out[e] * (1 - out[e]) * ((slope[e] - mean) / all) + z * fast_exp(l[e] - lse);
  }
  for (int k = 0; k < top_k; ++k) {
    const int e = in.experts(t, k);
    const A score = s(e), ds = (in.scaling_factor * in.dweights(t, k) - off) / divisor;
    out[e] += score * (1 - score) * ds;
  }
}

template <typename A>
void backward_kernel(const ExecSpace& exec, TypedGradient<A> in, bool sigmoid, SequenceParts parts,
                     View2<A> dl) {
  Kokkos::parallel_for(
      "konclave::ops::route_backward", parts.policy(exec),
      KOKKOS_LAMBDA(const Team::member_type& team) {
        const int part = team.league_rank();
        const A* const slope = &in.slope(part / parts.of_each, 0);
        Kokkos::parallel_for(Kokkos::TeamThreadRange(team, parts.begin(part), parts.end(part)),
                             [&](const int t) {
                               if (sigmoid) {
                                 sigmoid_row(in, t, slope, &dl(t, 0));
                               } else {
                                 softmax_row(in, t, slope, &dl(t, 0));
                               }
                             });
      });
}

}  // namespace

void route_backward(const ExecSpace& exec, const RouteGradient& in, const AnyView& dl) {
  const bool sigmoid = in.rule.score == ScoreFunction::sigmoid;
  require(same_shape(in.of_logits, dl) && same_shape(in.weights, in.dweights) &&
              in.offsets.size() == static_cast<std::size_t>(in.slope.extent(0)) + 1,
          "route_backward: want scores or logits, dl (T,E), weights, dweights (T,K), offsets "
          "(Q+1), slope (Q,E)");
  if (dl.empty()) return;
  dispatch_accum(dl.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    const TypedGradient<A> typed{in.of_logits.as2<A>(),
                                 in.lse.as1<A>(),
                                 in.weights.as2<A>(),
                                 in.dweights.as2<A>(),
                                 in.experts,
                                 in.slope.as2<A>(),
                                 static_cast<A>(in.z_scale),
                                 static_cast<A>(in.rule.scaling_factor),
                                 in.rule.pre_softmax};
    backward_kernel<A>(exec, typed, sigmoid, SequenceParts(in.offsets, dl.extent(0)), dl.as2<A>());
  });
}

}  // namespace konclave::ops
