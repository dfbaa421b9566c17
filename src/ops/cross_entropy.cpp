#include "ops/cross_entropy.hpp"

#include "ops/fast_math.hpp"
#include "ops/rows.hpp"

namespace konclave::ops {

namespace {

/// Numbers of a row's statistics, and their places.
constexpr int kStatistics = 3;
enum Place { kLargest, kSum, kTarget };

/// A label's place in a part of `vocabulary` logits from `first` on, or -1.
KOKKOS_INLINE_FUNCTION std::int64_t place_in_part(int label, std::int64_t first,
                                                  std::int64_t vocabulary) {
  return label < first || label >= first + vocabulary ? -1 : label - first;
}

template <typename A>
void statistics_kernel(const ExecSpace& exec, View2<const A> z, View1<const int> labels,
                       std::int64_t first, View2<A> result) {
  const std::int64_t vocabulary = z.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::cross_entropy_statistics", row_policy(exec, z.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const int t = team.league_rank();
        const A* in = &z(t, 0);
        const A largest =
            row_max<A>(team, vocabulary, in[0], [=](std::int64_t v) { return in[v]; });
        const A sum = row_sum<A>(team, vocabulary,
                                 [=](std::int64_t v) { return A(fast_exp(in[v] - largest)); });
        Kokkos::single(Kokkos::PerTeam(team), [&] {
          const std::int64_t label = place_in_part(labels(t), first, vocabulary);
          result(t, kLargest) = largest;
          result(t, kSum) = sum;
          result(t, kTarget) = label < 0 ? A(0) : in[label];
        });
      });
}

/// The same, and the terms of the sum.
template <typename X>
void terms_kernel(const ExecSpace& exec, View2<const Accum<X>> z, View1<const int> labels,
                  std::int64_t first, View2<Accum<X>> result, View2<X> terms) {
  using A = Accum<X>;
  const std::int64_t vocabulary = z.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::cross_entropy_terms", row_policy(exec, z.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const int t = team.league_rank();
        const A* in = &z(t, 0);
        X* out = &terms(t, 0);
        const std::int64_t label = place_in_part(labels(t), first, vocabulary);
        const A target = label < 0 ? A(0) : in[label];
        const A largest =
            row_max<A>(team, vocabulary, in[0], [=](std::int64_t v) { return in[v]; });
        team.team_barrier();
        const A sum = row_tiles_sum<A>(team, vocabulary, [=](auto tile, std::int64_t v, A* part) {
          constexpr int kCount = decltype(tile)::value;
          A term[kCount];
          for (int i = 0; i < kCount; ++i) term[i] = A(fast_exp(in[v + i] - largest));
          for (int i = 0; i < kCount; ++i) part[i] += term[i];
          for (int i = 0; i < kCount; ++i) out[v + i] = X(term[i]);
        });
        Kokkos::single(Kokkos::PerTeam(team), [&] {
          result(t, kLargest) = largest;
          result(t, kSum) = sum;
          result(t, kTarget) = target;
        });
      });
}

template <typename A>
void merge_kernel(const ExecSpace& exec, View2<const A> parts, View1<const int> labels,
                  View2<A> whole, View1<double> loss) {
  const std::int64_t rows = whole.extent_int(0), ranks = parts.extent_int(0) / rows;
  Kokkos::parallel_for(
      "konclave::ops::merge_cross_entropy", Range(exec, 0, rows),
      KOKKOS_LAMBDA(const std::int64_t t) {
        A largest = parts(t, kLargest), sum = 0, target = 0;
        for (std::int64_t r = 1; r < ranks; ++r) {
          const A other = parts(r * rows + t, kLargest);
          largest = other > largest ? other : largest;
        }
        for (std::int64_t r = 0; r < ranks; ++r) {
          const std::int64_t part = r * rows + t;
          sum += parts(part, kSum) * A(fast_exp(parts(part, kLargest) - largest));
          target += parts(part, kTarget);
        }
        whole(t, kLargest) = largest;
        whole(t, kSum) = sum;
        whole(t, kTarget) = target;
        loss(t) = labels(t) < 0
                      ? 0.0
                      : static_cast<double>(math::log(sum)) + static_cast<double>(largest - target);
      });
}

template <typename X>
void gradient_kernel(const ExecSpace& exec, View2<const X> terms, View2<const Accum<X>> part,
                     View2<const Accum<X>> whole, View1<const int> labels, std::int64_t first,
                     Accum<X> scale, View2<X> dz) {
  using A = Accum<X>;
  const std::int64_t vocabulary = terms.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::cross_entropy_gradient", row_policy(exec, terms.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const int t = team.league_rank(), label = labels(t);
        const X* in = &terms(t, 0);
        X* out = &dz(t, 0);
        const A largest = whole(t, kLargest);
        const A share = label < 0 ? A(0) : scale / whole(t, kSum);
        const A factor = share * A(fast_exp(part(t, kLargest) - largest));
        row_tiles(team, vocabulary, [=](auto tile, std::int64_t v) {
          constexpr int kCount = decltype(tile)::value;
          A value[kCount];
          for (int i = 0; i < kCount; ++i) value[i] = factor * A(in[v + i]);
          for (int i = 0; i < kCount; ++i) out[v + i] = X(value[i]);
        });
        team.team_barrier();
        Kokkos::single(Kokkos::PerTeam(team), [&] {
          const std::int64_t place = place_in_part(label, first, vocabulary);
          if (place < 0) return;
          // Not of the terms, which may be rounded: the two may nearly be equal.
          out[place] = X(share * A(fast_exp(whole(t, kTarget) - largest)) - scale);
        });
      });
}

bool is_statistics(const AnyIn& view, const AnyIn& z) {
  return view.rank() == 2 && view.extent(0) == z.extent(0) && view.extent(1) == kStatistics;
}

}  // namespace

void cross_entropy_statistics(const ExecSpace& exec, const AnyIn& z, const View1<const int>& labels,
                              std::int64_t first, const AnyView& statistics) {
  require(static_cast<std::int64_t>(labels.size()) == z.extent(0) && is_statistics(statistics, z),
          "cross_entropy_statistics: want z (T,V), labels (T), statistics (T,3)");
  if (z.empty()) return;
  dispatch_accum(z.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    statistics_kernel<A>(exec, z.as2<A>(), labels, first, statistics.as2<A>());
  });
}

void cross_entropy_terms(const ExecSpace& exec, const AnyIn& z, const View1<const int>& labels,
                         std::int64_t first, const AnyView& statistics, const AnyView& terms) {
  require(static_cast<std::int64_t>(labels.size()) == z.extent(0) && is_statistics(statistics, z) &&
              same_shape(z, terms),
          "cross_entropy_terms: want z, terms (T,V), labels (T), statistics (T,3)");
  if (z.empty()) return;
  dispatch(terms.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    terms_kernel<X>(exec, z.as2<Accum<X>>(), labels, first, statistics.as2<Accum<X>>(),
                    terms.as2<X>());
  });
}

void merge_cross_entropy(const ExecSpace& exec, const AnyIn& parts, const View1<const int>& labels,
                         const AnyView& whole, const View1<double>& loss) {
  const auto rows = static_cast<std::int64_t>(labels.size());
  require(labels.size() == loss.size() && whole.extent(0) == rows &&
              whole.extent(1) == kStatistics && parts.extent(1) == kStatistics &&
              (rows == 0 || parts.extent(0) % rows == 0),
          "merge_cross_entropy: want parts (R T,3), labels (T), whole (T,3), loss (T)");
  if (parts.empty()) return;
  dispatch_accum(parts.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    merge_kernel<A>(exec, parts.as2<A>(), labels, whole.as2<A>(), loss);
  });
}

void cross_entropy_gradient(const ExecSpace& exec, const AnyIn& terms, const AnyIn& statistics,
                            const AnyIn& whole, const View1<const int>& labels, std::int64_t first,
                            double scale, const AnyView& dz) {
  require(static_cast<std::int64_t>(labels.size()) == terms.extent(0) &&
              is_statistics(statistics, terms) && is_statistics(whole, terms) &&
              same_shape(terms, dz),
          "cross_entropy_gradient: want terms, dz (T,V), statistics, whole (T,3), labels (T)");
  if (terms.empty()) return;
  dispatch(dz.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    gradient_kernel<X>(exec, terms.as2<X>(), statistics.as2<Accum<X>>(), whole.as2<Accum<X>>(),
                       labels, first, static_cast<Accum<X>>(scale), dz.as2<X>());
  });
}

}  // namespace konclave::ops
