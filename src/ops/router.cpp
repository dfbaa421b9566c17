#include "ops/router.hpp"

#include "ops/route_row.hpp"
#include "ops/route_rows.hpp"

namespace konclave::ops {

namespace {

/// What the rows of one part of a sequence add up to, as doubles behind each other: scores, tokens
/// by their largest scores, by their choice where that may be another, lse^2, entropy.
struct PartSums {
  int experts;
  bool two_choices;

  KOKKOS_INLINE_FUNCTION int counts() const { return experts; }
  KOKKOS_INLINE_FUNCTION int chosen() const { return two_choices ? 2 * experts : experts; }
  KOKKOS_INLINE_FUNCTION int squares() const { return chosen() + experts; }
  KOKKOS_INLINE_FUNCTION int entropy() const { return squares() + 1; }
  KOKKOS_INLINE_FUNCTION int columns() const { return squares() + 2; }
};

/// Adds rows begin .. end-1 of scores (T,E), one row after the other; a thread takes some experts.
template <typename A>
KOKKOS_INLINE_FUNCTION void add_scores(const Team::member_type& team, const View2<A>& scores,
                                       int begin, int end, double* sums) {
  constexpr int kWidth = kHostExecution ? 8 : 1;
  const int experts = scores.extent_int(1), blocks = experts / kWidth;
  Kokkos::parallel_for(Kokkos::TeamThreadRange(team, blocks), [&](const int block) {
    double* const to = sums + block * kWidth;
    double sum[kWidth];
    for (int i = 0; i < kWidth; ++i) sum[i] = to[i];
    for (int t = begin; t < end; ++t) {
      const A* const row = &scores(t, block * kWidth);
      for (int i = 0; i < kWidth; ++i) sum[i] += static_cast<double>(row[i]);
    }
    for (int i = 0; i < kWidth; ++i) to[i] = sum[i];
  });
  Kokkos::parallel_for(Kokkos::TeamThreadRange(team, blocks * kWidth, experts), [&](const int e) {
    for (int t = begin; t < end; ++t) sums[e] += static_cast<double>(scores(t, e));
  });
}

template <typename A>
KOKKOS_INLINE_FUNCTION void add_counts(const Rows<A>& rows, int begin, int end, const PartSums& at,
                                       double* sums) {
  const int top_k = rows.experts.extent_int(1);
  for (int t = begin; t < end; ++t) {
    for (int k = 0; k < top_k; ++k) sums[at.chosen() + rows.experts(t, k)] += 1;
    for (int k = 0; k < top_k && at.two_choices; ++k) sums[at.counts() + rows.largest(t, k)] += 1;
    const auto lse = static_cast<double>(rows.lse(t));
    sums[at.squares()] += lse * lse;
    sums[at.entropy()] += rows.entropy(t);
  }
}

template <typename A>
void route_kernel(const ExecSpace& exec, Rows<A> rows, RouteRule rule, bool given,
                  SequenceParts parts, View2<double> sums) {
  const PartSums at{rows.logits.extent_int(1), rows.largest.size() > 0};
  Kokkos::parallel_for(
      "konclave::ops::route", parts.policy(exec), KOKKOS_LAMBDA(const Team::member_type& team) {
        constexpr int kRowsAtOnce = kHostExecution ? 16 : 128;  // whose scores are still near
        const int part = team.league_rank(), end = parts.end(part);
        double* const sum = &sums(part, 0);
        Kokkos::parallel_for(Kokkos::TeamThreadRange(team, at.columns()),
                             [&](const int i) { sum[i] = 0; });
        for (int first = parts.begin(part); first < end; first += kRowsAtOnce) {
          const int behind = first + kRowsAtOnce < end ? first + kRowsAtOnce : end;
          Kokkos::parallel_for(Kokkos::TeamThreadRange(team, first, behind), [&](const int t) {
            route_row(Row<A>(rows, t), rule, given, rows.lse(t), rows.entropy(t));
          });
          team.team_barrier();
          add_scores(team, rows.scores, first, behind, sum);
          Kokkos::single(Kokkos::PerTeam(team), [&] { add_counts(rows, first, behind, at, sum); });
          team.team_barrier();
        }
      });
}

/// The parts of each sequence, in order.
void add_parts(const ExecSpace& exec, View2<const double> sums, int of_each, RouteStatistics to,
               bool two_choices) {
  const PartSums at{to.counts.extent_int(1), two_choices};
  const std::int64_t columns = at.columns();
  Kokkos::parallel_for(
      "konclave::ops::add_route_parts", Range(exec, 0, to.counts.extent_int(0) * columns),
      KOKKOS_LAMBDA(const std::int64_t i) {
        const auto q = static_cast<int>(i / columns), column = static_cast<int>(i % columns);
        double sum = 0;
        for (int part = q * of_each; part < (q + 1) * of_each; ++part) sum += sums(part, column);
        if (column == at.squares()) {
          to.squares(q) = sum;
        } else if (column == at.entropy()) {
          to.entropy(q) = sum;
        } else if (column >= at.chosen()) {
          to.chosen(q, column - at.chosen()) = sum;
          if (!two_choices) to.counts(q, column - at.chosen()) = sum;
        } else if (column >= at.counts()) {
          to.counts(q, column - at.counts()) = sum;
        } else {
          to.sums(q, column) = sum;
        }
      });
}

void check(const AnyIn& l, const RouteRule& rule, const RouteChoice& choice, const Routed& routed,
           const RouteStatistics& statistics) {
  const std::int64_t experts = l.extent(1), top_k = routed.experts.extent_int(1);
  require(same_shape(l, routed.scores) && routed.lse.extent(0) == l.extent(0) &&
              routed.weights.extent(0) == l.extent(0) && routed.weights.extent(1) == top_k &&
              routed.experts.extent_int(0) == l.extent(0) && top_k >= 1 && top_k <= experts,
          "route: want l, scores (T,E), lse (T), experts, weights (T,K) with 1 <= K <= E");
  const std::int64_t groups = rule.num_groups, of_groups = rule.group_top_k;
  require(groups <= 1 || (experts % groups == 0 && of_groups >= 1 && of_groups <= groups &&
                          of_groups <= top_k && top_k <= of_groups * (experts / groups)),
          "route: want E % num_groups = 0, group_top_k <= num_groups and group_top_k <= K <= "
          "group_top_k E / num_groups");
  require((choice.bias.size() == 0 || choice.bias.extent_int(0) == experts) &&
              (choice.preferences.empty() || same_shape(choice.preferences, l)),
          "route: want a bias (E), preferences (T,E)");
  const auto sequences = statistics.offsets.size() - 1;
  const bool two = chooses_by_more_than_scores(rule, choice);
  require(
      statistics.counts.extent(0) == sequences && statistics.sums.extent(0) == sequences &&
          statistics.chosen.extent(0) == sequences && statistics.squares.size() == sequences &&
          statistics.entropy.size() == sequences && statistics.counts.extent_int(1) == experts &&
          statistics.sums.extent_int(1) == experts && statistics.chosen.extent_int(1) == experts &&
          statistics.largest.size() == (two ? routed.experts.size() : 0),
      "route: want offsets (Q+1), counts, sums, chosen (Q,E), squares, entropy (Q), and largest "
      "(T,K) where the choice may be another than the largest scores");
}

}  // namespace

std::int64_t router_bytes(std::int64_t tokens, int experts, int top_k, DType type) {
  const auto element = static_cast<std::int64_t>(size_of(type));
  const std::int64_t index = sizeof(int);
  return tokens * (element * (2 * experts + 1 + top_k) + index * top_k);
}

bool chooses_by_more_than_scores(const RouteRule& rule, const RouteChoice& choice) {
  return rule.num_groups > 1 || !choice.preferences.empty() || choice.given ||
         choice.bias.size() > 0;
}

std::int64_t route_scratch(std::int64_t tokens, std::int64_t sequences, int experts) {
  const PartSums widest{experts, true};
  return sequences * SequenceParts::of_each_sequence(sequences, tokens) * widest.columns() + tokens;
}

void route(const ExecSpace& exec, const AnyIn& l, const RouteRule& rule, const RouteChoice& choice,
           const Routed& routed, const RouteStatistics& statistics) {
  check(l, rule, choice, routed, statistics);
  const std::int64_t tokens = l.extent(0);
  const SequenceParts parts(statistics.offsets, tokens);
  if (parts.count() == 0) return;
  const bool two_choices = statistics.largest.size() > 0;
  const PartSums at{static_cast<int>(l.extent(1)), two_choices};
  const View2<double> sums(statistics.scratch.data(), static_cast<std::size_t>(parts.count()),
                           static_cast<std::size_t>(at.columns()));
  const View1<double> entropy(sums.data() + sums.size(), static_cast<std::size_t>(tokens));
  require(sums.size() + entropy.size() <= statistics.scratch.size(),
          "route: want scratch of route_scratch doubles");
  dispatch_accum(l.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    Rows<A> rows{l.as2<A>(),
                 {},
                 choice.bias,
                 routed.scores.as2<A>(),
                 routed.lse.as1<A>(),
                 routed.experts,
                 routed.weights.as2<A>(),
                 statistics.largest,
                 entropy};
    if (!choice.preferences.empty()) rows.preferences = choice.preferences.as2<A>();
    route_kernel<A>(exec, rows, rule, choice.given, parts, sums);
  });
  add_parts(exec, sums, parts.of_each, statistics, two_choices);
}

}  // namespace konclave::ops
