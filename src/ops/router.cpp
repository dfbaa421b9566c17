#include "ops/router.hpp"

#include "ops/fast_math.hpp"
#include "tensor/kokkos.hpp"

#include <limits>

namespace konclave::ops {

namespace {

/// The logit as the choice sees it.
template <typename A> KOKKOS_INLINE_FUNCTION A comparable(A logit) {
  return logit == logit ? logit : -std::numeric_limits<A>::infinity();
}

/// Writes the K best experts of a row in ascending order of index. Each pass finds the best one
/// behind the last found, in the order (larger logit, then lower index), so no marks are needed.
template <typename A>
KOKKOS_INLINE_FUNCTION void choose(const A* logits, int experts, int top_k, int* chosen) {
  A last = 0;
  int last_index = -1;
  for (int k = 0; k < top_k; ++k) {
    int best_index = -1;
    A best = 0;
    for (int e = 0; e < experts; ++e) {
      const A value = comparable(logits[e]);
      const bool behind = last_index < 0 || value < last || (value == last && e > last_index);
      if (behind && (best_index < 0 || value > best)) {
        best = value;
        best_index = e;
      }
    }
    last = best;
    last_index = best_index;
    int place = k;
    for (; place > 0 && chosen[place - 1] > best_index; --place) chosen[place] = chosen[place - 1];
    chosen[place] = best_index;
  }
}

template <typename A> struct TypedRouted {
  View2<A> scores;
  View1<A> lse;
  View2<int> experts;
  View2<A> weights;
};

template <typename A>
void route_kernel(const ExecSpace& exec, View2<const A> l, bool pre_softmax, TypedRouted<A> out) {
  const int experts = l.extent_int(1), top_k = out.experts.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::route", Range(exec, 0, l.extent_int(0)), KOKKOS_LAMBDA(const std::int64_t t) {
        const A* logits = &l(t, 0);
        A* scores = &out.scores(t, 0);
        A* weights = &out.weights(t, 0);
        int* chosen = &out.experts(t, 0);
        A largest = logits[0];
        for (int e = 1; e < experts; ++e) largest = logits[e] > largest ? logits[e] : largest;
        A sum = 0;
        for (int e = 0; e < experts; ++e) scores[e] = fast_exp(logits[e] - largest);
        for (int e = 0; e < experts; ++e) sum += scores[e];
        out.lse(t) = largest + math::log(sum);

        choose(logits, experts, top_k, chosen);
        A total = sum == sum ? A(0) : sum;  // a NaN anywhere in the row reaches the weights
        for (int k = 0; k < top_k; ++k) {
          weights[k] = scores[chosen[k]];
          total += weights[k];
        }
        const A whole = pre_softmax ? sum : total;
        for (int k = 0; k < top_k; ++k) weights[k] /= whole;
        for (int e = 0; e < experts; ++e) scores[e] /= sum;
      });
}

template <typename A>
void statistics_kernel(const ExecSpace& exec, View2<const A> scores, View2<const int> chosen,
                       View1<const int> offsets, View2<double> counts, View2<double> sums) {
  const int experts = scores.extent_int(1), top_k = chosen.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::window_statistics", Range(exec, 0, counts.extent_int(0)),
      KOKKOS_LAMBDA(const std::int64_t w) {
        double* count = &counts(w, 0);
        double* sum = &sums(w, 0);
        for (int e = 0; e < experts; ++e) {
          count[e] = 0;
          sum[e] = 0;
        }
        for (int t = offsets(w); t < offsets(w + 1); ++t) {
          for (int k = 0; k < top_k; ++k) ++count[chosen(t, k)];
          for (int e = 0; e < experts; ++e) sum[e] += static_cast<double>(scores(t, e));
        }
      });
}

template <typename A>
void switch_kernel(const ExecSpace& exec, View2<const double> counts, View2<const double> sums,
                   double factor, double scale, View1<double> loss, View2<A> slope) {
  const int experts = counts.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::switch_loss", Range(exec, 0, counts.extent_int(0)),
      KOKKOS_LAMBDA(const std::int64_t w) {
        double sum = 0;
        for (int e = 0; e < experts; ++e) {
          const double weight = factor * counts(w, e);
          sum += weight * sums(w, e);
          slope(w, e) = static_cast<A>(weight * scale);
        }
        loss(w) = sum;
      });
}

template <typename A> struct TypedGradient {
  View2<const A> scores;
  View1<const A> lse;
  View2<const A> weights, dweights;
  View2<const int> experts;
  View1<const int> offsets;
  View2<const A> slope;
  A z_scale;
  bool pre_softmax;
};

template <typename A>
void backward_kernel(const ExecSpace& exec, TypedGradient<A> in, View2<A> dl) {
  const int experts = in.scores.extent_int(1), top_k = in.experts.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::route_backward",
      Kokkos::TeamPolicy<ExecSpace>(exec, in.slope.extent_int(0), Kokkos::AUTO),
      KOKKOS_LAMBDA(const Team::member_type& team) {
        const int w = team.league_rank();
        Kokkos::parallel_for(Kokkos::TeamThreadRange(team, in.offsets(w), in.offsets(w + 1)),
                             [&](const int t) {
                               const A *score = &in.scores(t, 0), *weight = &in.weights(t, 0);
                               const A *dweight = &in.dweights(t, 0), *slope = &in.slope(w, 0);
                               A* out = &dl(t, 0);
                               // Mean slopes that the softmax takes off: of the auxiliary loss over
                               // all experts, of the weights over the chosen ones.
                               A mean = 0, chosen_mean = 0;
                               for (int e = 0; e < experts; ++e) mean += score[e] * slope[e];
                               for (int k = 0; k < top_k; ++k)
                                 chosen_mean += weight[k] * dweight[k];
                               const A common = in.pre_softmax ? mean + chosen_mean : mean;
                               const A z = 2 * in.z_scale * in.lse(t);
                               for (int e = 0; e < experts; ++e)
                                 out[e] = score[e] * (slope[e] - common + z);
                               for (int k = 0; k < top_k; ++k) {
                                 const A centre = in.pre_softmax ? A(0) : chosen_mean;
                                 out[in.experts(t, k)] += weight[k] * (dweight[k] - centre);
                               }
                             });
      });
}

template <typename F> void with_router_type(DType type, F&& f) {
  if (type == DType::fp64) {
    f(TypeTag<double>{});
  } else {
    f(TypeTag<float>{});
  }
}

}  // namespace

std::int64_t router_bytes(std::int64_t tokens, int experts, int top_k, DType type) {
  const auto element = static_cast<std::int64_t>(size_of(type));
  const std::int64_t index = sizeof(int);
  return tokens * (element * (2 * experts + 1 + top_k) + index * top_k);
}

void route(const ExecSpace& exec, const AnyIn& l, bool pre_softmax, const Routed& routed) {
  const int top_k = routed.experts.extent_int(1);
  require(same_shape(l, routed.scores) && routed.lse.extent(0) == l.extent(0) &&
              routed.weights.extent(0) == l.extent(0) && routed.weights.extent(1) == top_k &&
              top_k >= 1 && top_k <= l.extent(1),
          "route: want l, scores (T,E), lse (T), experts, weights (T,K) with 1 <= K <= E");
  if (l.empty()) return;
  with_router_type(l.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    route_kernel<A>(
        exec, l.as2<A>(), pre_softmax,
        {routed.scores.as2<A>(), routed.lse.as1<A>(), routed.experts, routed.weights.as2<A>()});
  });
}

void window_statistics(const ExecSpace& exec, const AnyIn& scores, const View2<const int>& experts,
                       const View1<const int>& offsets, const View2<double>& counts,
                       const View2<double>& sums) {
  require(offsets.size() == counts.extent(0) + 1 && sums.extent(0) == counts.extent(0) &&
              counts.extent_int(1) == scores.extent(1) && sums.extent_int(1) == scores.extent(1),
          "window_statistics: want scores (T,E), offsets (W+1), counts, sums (W,E)");
  with_router_type(scores.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    statistics_kernel<A>(exec, scores.as2<A>(), experts, offsets, counts, sums);
  });
}

void switch_loss(const ExecSpace& exec, std::int64_t window_tokens,
                 const View2<const double>& counts, const View2<const double>& sums, int top_k,
                 double coefficient, double scale, const View1<double>& loss,
                 const AnyView& slope) {
  require(window_tokens > 0 || counts.extent(0) == 0, "switch_loss: a window has tokens");
  require(loss.size() == counts.extent(0) && sums.extent(0) == counts.extent(0) &&
              sums.extent(1) == counts.extent(1) && slope.extent(0) == counts.extent_int(0) &&
              slope.extent(1) == counts.extent_int(1),
          "switch_loss: want counts, sums, slope (W,E), loss (W)");
  const auto tokens = static_cast<double>(window_tokens);
  const double factor =
      coefficient * static_cast<double>(counts.extent(1)) / (top_k * tokens * tokens);
  with_router_type(slope.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    switch_kernel<A>(exec, counts, sums, factor, scale, loss, slope.as2<A>());
  });
}

void route_backward(const ExecSpace& exec, const RouteGradient& in, const AnyView& dl) {
  require(same_shape(in.scores, dl) && same_shape(in.weights, in.dweights) &&
              in.offsets.size() == static_cast<std::size_t>(in.slope.extent(0)) + 1,
          "route_backward: want scores, dl (T,E), weights, dweights (T,K), offsets (W+1)");
  if (dl.empty()) return;
  with_router_type(dl.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    backward_kernel<A>(
        exec,
        {in.scores.as2<A>(), in.lse.as1<A>(), in.weights.as2<A>(), in.dweights.as2<A>(), in.experts,
         in.offsets, in.slope.as2<A>(), static_cast<A>(in.z_scale), in.pre_softmax},
        dl.as2<A>());
  });
}

}  // namespace konclave::ops
