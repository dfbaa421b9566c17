#include "ops/switch_loss.hpp"

#include "tensor/kokkos.hpp"

namespace konclave::ops {

namespace {

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

}  // namespace

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
  dispatch_accum(slope.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    switch_kernel<A>(exec, counts, sums, factor, scale, loss, slope.as2<A>());
  });
}

}  // namespace konclave::ops
