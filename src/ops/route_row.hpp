#pragma once

#include "ops/fast_math.hpp"
#include "ops/route_choice.hpp"
#include "ops/route_rows.hpp"
#include "ops/router.hpp"

/// What a thread does with one row of logits: see route.
namespace konclave::ops {

/// Results and inputs of all rows; what is empty is not there.
template <typename A> struct Rows {
  View2<const A> logits, preferences;
  View1<const float> bias;
  View2<A> scores;
  View1<A> lse;
  View2<int> experts;
  View2<A> weights;
  View2<int> largest;
  View1<double> entropy;
};

/// A thread's work on one row.
template <typename A> struct Row {
  const A* logits;
  const A* preferences;  ///< or null
  const float* bias;     ///< or null
  A* scores;
  A* weights;
  int* chosen;
  int* largest;  ///< or null
  int experts, top_k;

  KOKKOS_INLINE_FUNCTION Row(const Rows<A>& of, std::int64_t t)
      : logits(&of.logits(t, 0)),
        preferences(of.preferences.size() == 0 ? nullptr : &of.preferences(t, 0)),
        bias(of.bias.size() == 0 ? nullptr : of.bias.data()),
        scores(&of.scores(t, 0)),
        weights(&of.weights(t, 0)),
        chosen(&of.experts(t, 0)),
        largest(of.largest.size() == 0 ? nullptr : &of.largest(t, 0)),
        experts(of.logits.extent_int(1)),
        top_k(of.experts.extent_int(1)) {}

  KOKKOS_INLINE_FUNCTION A largest_logit() const { return lane_max(experts, logits); }
  /// scores = exp(l - most); returns their sum.
  KOKKOS_INLINE_FUNCTION A exponentials(A most) const {
    for (int e = 0; e < experts; ++e) scores[e] = fast_exp(logits[e] - most);
    const A* const all = scores;
    return lane_sum<A>(experts, [=](int e) { return all[e]; });
  }
  KOKKOS_INLINE_FUNCTION void sigmoids() const {
    for (int e = 0; e < experts; ++e) scores[e] = 1 / (1 + fast_exp(-logits[e]));
  }
  KOKKOS_INLINE_FUNCTION void divide_scores(A by) const {
    for (int e = 0; e < experts; ++e) scores[e] /= by;
  }

  /// What experts are chosen by: the logits, preferences, or `scores`, which then hold just that.
  KOKKOS_INLINE_FUNCTION const A* values_of_choice(const RouteRule& rule) const {
    const bool grouped = rule.num_groups > 1;
    const A* values = preferences == nullptr ? logits : preferences;
    if (preferences == nullptr && rule.score == ScoreFunction::sigmoid) {
      sigmoids();
      values = scores;
    } else if (preferences == nullptr && (bias != nullptr || (grouped && rule.pre_softmax))) {
      divide_scores(exponentials(largest_logit()));
      values = scores;
    }
    if (bias != nullptr && values == scores) {
      for (int e = 0; e < experts; ++e) scores[e] += static_cast<A>(bias[e]);
    }
    if (grouped) {
      for (int e = 0; e < experts && values != scores; ++e) scores[e] = values[e];
      keep_best_groups(scores, experts, rule.num_groups, rule.group_top_k, top_k / rule.group_top_k,
                       chosen, weights);
      values = scores;
    }
    return values;
  }

  /// weights[k] = f(expert); returns their sum, or NaN when `all` is.
  template <typename F> KOKKOS_INLINE_FUNCTION A weigh(A all, const F& f) const {
    A total = all == all ? A(0) : all;
    for (int k = 0; k < top_k; ++k) {
      weights[k] = f(chosen[k]);
      total += weights[k];
    }
    return total;
  }
  KOKKOS_INLINE_FUNCTION void scale_weights(A divisor, A factor) const {
    for (int k = 0; k < top_k; ++k) weights[k] = weights[k] / divisor * factor;
  }
};

/// Weights, scores and entropy of a softmax row whose experts are chosen.
template <typename A>
KOKKOS_INLINE_FUNCTION void finish_softmax(const Row<A>& row, const RouteRule& rule, A& lse,
                                           double& entropy) {
  const A *logits = row.logits, *scores = row.scores;
  const A most = row.largest_logit(), sum = row.exponentials(most), log_sum = math::log(sum);
  lse = most + log_sum;
  if (row.largest != nullptr) choose(logits, row.experts, row.top_k, row.largest);
  A total = row.weigh(sum, [=](int e) { return scores[e]; });
  if (row.largest != nullptr && !rule.pre_softmax) {
    // Others than the largest may be chosen: all of their exponentials may be 0.
    A most_chosen = logits[row.chosen[0]];
    for (int k = 1; k < row.top_k; ++k) {
      const A logit = logits[row.chosen[k]];
      most_chosen = logit > most_chosen ? logit : most_chosen;
    }
    total = row.weigh(sum, [=](int e) { return fast_exp(logits[e] - most_chosen); });
  }
  row.scale_weights(rule.pre_softmax ? sum : total, static_cast<A>(rule.scaling_factor));
  row.divide_scores(sum);
  entropy = log_sum - lane_sum<A>(row.experts, [=](int e) {
              return scores[e] > 0 ? scores[e] * (logits[e] - most) : A(0);
            });
}

template <typename A>
KOKKOS_INLINE_FUNCTION void finish_sigmoid(const Row<A>& row, const RouteRule& rule,
                                           bool has_scores, A& lse, double& entropy) {
  const A *logits = row.logits, *scores = row.scores;
  const A most = row.largest_logit();
  lse =
      most + math::log(lane_sum<A>(row.experts, [=](int e) { return fast_exp(logits[e] - most); }));
  if (!has_scores) row.sigmoids();
  if (row.largest != nullptr) choose(scores, row.experts, row.top_k, row.largest);
  const A sum = lane_sum<A>(row.experts, [=](int e) { return scores[e]; }) + A(kTinySum);
  const A total = row.weigh(sum, [=](int e) { return scores[e]; }) + A(kTinySum);
  const A divisor = row.top_k > 1 ? total : sum == sum ? A(1) : sum;
  row.scale_weights(divisor, static_cast<A>(rule.scaling_factor));
  row.divide_scores(sum);
  entropy = -lane_sum<A>(row.experts, [=](int e) { return scores[e] * fast_log(scores[e]); });
}

template <typename A>
KOKKOS_INLINE_FUNCTION void route_row(const Row<A>& row, const RouteRule& rule, bool given, A& lse,
                                      double& entropy) {
  bool has_scores = false;
  if (!given) {
    const A* const values = row.values_of_choice(rule);
    choose(values, row.experts, row.top_k, row.chosen);
    has_scores = values == row.scores && row.bias == nullptr && rule.num_groups <= 1;
  }
  if (rule.score == ScoreFunction::sigmoid) {
    finish_sigmoid(row, rule, has_scores, lse, entropy);
  } else {
    finish_softmax(row, rule, lse, entropy);
  }
}

}  // namespace konclave::ops
