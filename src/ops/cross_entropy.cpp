#include "ops/cross_entropy.hpp"

#include "ops/fast_math.hpp"
#include "ops/rows.hpp"

namespace konclave::ops {

namespace {

/// Largest logit of a row and the sum of exp(z - largest).
template <typename A> struct RowStatistics { A largest, sum; };

template <typename A>
KOKKOS_INLINE_FUNCTION RowStatistics<A> statistics(const RowMember& team, const A* z,
                                                   std::int64_t vocabulary) {
  const A largest = row_max<A>(team, vocabulary, z[0], [=](std::int64_t v) { return z[v]; });
  const A sum =
      row_sum<A>(team, vocabulary, [=](std::int64_t v) { return A(fast_exp(z[v] - largest)); });
  return {largest, sum};
}

/// Numbers of a row's statistics as ranks exchange them, and their places.
constexpr int kStatistics = 3;
enum Place { kLargest, kSum, kTarget };

template <typename A> KOKKOS_INLINE_FUNCTION double loss_of(const RowStatistics<A>& row, A target) {
  return static_cast<double>(math::log(row.sum)) + static_cast<double>(row.largest - target);
}

/// out[v] = share exp(in[v] - largest), less `scale` at the label, which is below 0 where `in` does
/// not have it. out may be in.
template <typename A, typename X>
KOKKOS_INLINE_FUNCTION void write_gradient(const RowMember& team, const A* in,
                                           std::int64_t vocabulary, A largest, A share, A scale,
                                           std::int64_t label, X* out) {
  const A target = label < 0 ? A(0) : in[label];
  team.team_barrier();
  row_for(team, vocabulary,
          [=](std::int64_t v) { out[v] = X(share * A(fast_exp(in[v] - largest))); });
  team.team_barrier();
  Kokkos::single(Kokkos::PerTeam(team), [&] {
    if (label >= 0) out[label] = X(share * A(fast_exp(target - largest)) - scale);
  });
}

template <typename A>
void loss_kernel(const ExecSpace& exec, View2<const A> z, View1<const int> labels,
                 View1<double> loss) {
  const std::int64_t vocabulary = z.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::cross_entropy", row_policy(exec, z.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const int t = team.league_rank(), label = labels(t);
        const RowStatistics<A> row = statistics(team, &z(t, 0), vocabulary);
        Kokkos::single(Kokkos::PerTeam(team),
                       [&] { loss(t) = label < 0 ? 0.0 : loss_of<A>(row, z(t, label)); });
      });
}

template <typename X>
void gradient_kernel(const ExecSpace& exec, View2<const Accum<X>> z, View1<const int> labels,
                     Accum<X> scale, View1<double> loss, View2<X> dz) {
  using A = Accum<X>;
  const std::int64_t vocabulary = z.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::cross_entropy_gradient", row_policy(exec, z.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const int t = team.league_rank(), label = labels(t);
        const A* in = &z(t, 0);
        X* out = &dz(t, 0);
        const RowStatistics<A> row = statistics(team, in, vocabulary);
        const A target = label < 0 ? A(0) : in[label];
        write_gradient(team, in, vocabulary, row.largest, label < 0 ? A(0) : scale / row.sum, scale,
                       label, out);
        Kokkos::single(Kokkos::PerTeam(team),
                       [&] { loss(t) = label < 0 ? 0.0 : loss_of<A>(row, target); });
      });
}

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
        const RowStatistics<A> row = statistics(team, &z(t, 0), vocabulary);
        Kokkos::single(Kokkos::PerTeam(team), [&] {
          const std::int64_t label = place_in_part(labels(t), first, vocabulary);
          result(t, kLargest) = row.largest;
          result(t, kSum) = row.sum;
          result(t, kTarget) = label < 0 ? A(0) : z(t, label);
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
        RowStatistics<A> row{parts(t, kLargest), 0};
        A target = 0;
        for (std::int64_t r = 1; r < ranks; ++r) {
          const A largest = parts(r * rows + t, kLargest);
          row.largest = largest > row.largest ? largest : row.largest;
        }
        for (std::int64_t r = 0; r < ranks; ++r) {
          const std::int64_t part = r * rows + t;
          row.sum += parts(part, kSum) * A(fast_exp(parts(part, kLargest) - row.largest));
          target += parts(part, kTarget);
        }
        whole(t, kLargest) = row.largest;
        whole(t, kSum) = row.sum;
        whole(t, kTarget) = target;
        loss(t) = labels(t) < 0 ? 0.0 : loss_of<A>(row, target);
      });
}

template <typename X>
void part_gradient_kernel(const ExecSpace& exec, View2<const Accum<X>> z,
                          View2<const Accum<X>> whole, View1<const int> labels, std::int64_t first,
                          Accum<X> scale, View2<X> dz) {
  using A = Accum<X>;
  const std::int64_t vocabulary = z.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::cross_entropy_part_gradient", row_policy(exec, z.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const int t = team.league_rank(), label = labels(t);
        write_gradient(team, &z(t, 0), vocabulary, whole(t, kLargest),
                       label < 0 ? A(0) : scale / whole(t, kSum), scale,
                       place_in_part(label, first, vocabulary), &dz(t, 0));
      });
}

bool is_statistics(const AnyIn& view, const AnyIn& z) {
  return view.rank() == 2 && view.extent(0) == z.extent(0) && view.extent(1) == kStatistics;
}

}  // namespace

void cross_entropy(const ExecSpace& exec, const AnyIn& z, const View1<const int>& labels,
                   const View1<double>& loss) {
  require(labels.size() == loss.size() && static_cast<std::int64_t>(loss.size()) == z.extent(0),
          "cross_entropy: want z (T,V), labels (T), loss (T)");
  if (z.empty()) return;
  if (z.type() == DType::fp64) {
    loss_kernel<double>(exec, z.as2<double>(), labels, loss);
  } else {
    loss_kernel<float>(exec, z.as2<float>(), labels, loss);
  }
}

void cross_entropy_gradient(const ExecSpace& exec, const AnyIn& z, const View1<const int>& labels,
                            double scale, const View1<double>& loss, const AnyView& dz) {
  require(labels.size() == loss.size() && static_cast<std::int64_t>(loss.size()) == z.extent(0) &&
              same_shape(z, dz),
          "cross_entropy_gradient: want z, dz (T,V), labels (T), loss (T)");
  if (z.empty()) return;
  dispatch(dz.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    gradient_kernel<X>(exec, z.as2<Accum<X>>(), labels, static_cast<Accum<X>>(scale), loss,
                       dz.as2<X>());
  });
}

void cross_entropy_statistics(const ExecSpace& exec, const AnyIn& z, const View1<const int>& labels,
                              std::int64_t first, const AnyView& statistics) {
  require(static_cast<std::int64_t>(labels.size()) == z.extent(0) && is_statistics(statistics, z),
          "cross_entropy_statistics: want z (T,V), labels (T), statistics (T,3)");
  if (z.empty()) return;
  if (z.type() == DType::fp64) {
    statistics_kernel<double>(exec, z.as2<double>(), labels, first, statistics.as2<double>());
  } else {
    statistics_kernel<float>(exec, z.as2<float>(), labels, first, statistics.as2<float>());
  }
}

void merge_cross_entropy(const ExecSpace& exec, const AnyIn& parts, const View1<const int>& labels,
                         const AnyView& whole, const View1<double>& loss) {
  const auto rows = static_cast<std::int64_t>(labels.size());
  require(labels.size() == loss.size() && whole.extent(0) == rows &&
              whole.extent(1) == kStatistics && parts.extent(1) == kStatistics &&
              (rows == 0 || parts.extent(0) % rows == 0),
          "merge_cross_entropy: want parts (R T,3), labels (T), whole (T,3), loss (T)");
  if (parts.empty()) return;
  if (parts.type() == DType::fp64) {
    merge_kernel<double>(exec, parts.as2<double>(), labels, whole.as2<double>(), loss);
  } else {
    merge_kernel<float>(exec, parts.as2<float>(), labels, whole.as2<float>(), loss);
  }
}

void cross_entropy_part_gradient(const ExecSpace& exec, const AnyIn& z, const AnyIn& whole,
                                 const View1<const int>& labels, std::int64_t first, double scale,
                                 const AnyView& dz) {
  require(static_cast<std::int64_t>(labels.size()) == z.extent(0) && is_statistics(whole, z) &&
              same_shape(z, dz),
          "cross_entropy_part_gradient: want z, dz (T,V), whole (T,3), labels (T)");
  if (z.empty()) return;
  dispatch(dz.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    part_gradient_kernel<X>(exec, z.as2<Accum<X>>(), whole.as2<Accum<X>>(), labels, first,
                            static_cast<Accum<X>>(scale), dz.as2<X>());
  });
}

}  // namespace konclave::ops
