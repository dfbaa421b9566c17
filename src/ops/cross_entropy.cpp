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

template <typename A>
void loss_kernel(const ExecSpace& exec, View2<const A> z, View1<const int> labels,
                 View1<double> loss) {
  const std::int64_t vocabulary = z.extent_int(1);
  Kokkos::parallel_for(
      "konclave::ops::cross_entropy", row_policy(exec, z.extent_int(0)),
      KOKKOS_LAMBDA(const RowMember& team) {
        const int t = team.league_rank(), label = labels(t);
        const RowStatistics<A> row = statistics(team, &z(t, 0), vocabulary);
        Kokkos::single(Kokkos::PerTeam(team), [&] {
          loss(t) = label < 0 ? 0.0
                              : static_cast<double>(math::log(row.sum)) +
                                    static_cast<double>(row.largest - z(t, label));
        });
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
        const A share = label < 0 ? A(0) : scale / row.sum;
        team.team_barrier();  // dz may be z
        row_for(team, vocabulary,
                [=](std::int64_t v) { out[v] = X(share * A(fast_exp(in[v] - row.largest))); });
        team.team_barrier();
        Kokkos::single(Kokkos::PerTeam(team), [&] {
          if (label >= 0) {
            out[label] = X(share * A(fast_exp(target - row.largest)) - scale);
          }
          loss(t) = label < 0 ? 0.0
                              : static_cast<double>(math::log(row.sum)) +
                                    static_cast<double>(row.largest - target);
        });
      });
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

}  // namespace konclave::ops
