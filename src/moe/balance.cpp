#include "moe/balance.hpp"

#include "ops/router.hpp"

namespace konclave {

namespace {

/// Adds the sums of one micro-batch to a layer's row: one thread, in a fixed order.
template <typename A>
void add_statistics(const ExecSpace& exec, View1<const double> losses, double per_window,
                    View1<const A> lse, double z_strength, View2<const int> counts,
                    View2<double> sums, int layer) {
  const int experts = counts.extent_int(1);
  Kokkos::parallel_for(
      "konclave::moe::add_statistics", Range(exec, 0, 1), KOKKOS_LAMBDA(const std::int64_t) {
        double aux = 0, squares = 0;
        for (int w = 0; w < losses.extent_int(0); ++w) aux += losses(w);
        for (int t = 0; t < lse.extent_int(0); ++t) {
          squares += static_cast<double>(lse(t)) * static_cast<double>(lse(t));
        }
        sums(layer, 0) += per_window * aux;
        sums(layer, 1) += z_strength * squares;
        for (int w = 0; w < counts.extent_int(0); ++w) {
          for (int e = 0; e < experts; ++e) sums(layer, 2 + e) += counts(w, e);
        }
      });
}

}  // namespace

Balance balance(const Context& context, const MoeConfig& config, const RoutingWindows& windows,
                const BalanceScale& scale, const AnyIn& scores, const AnyIn& lse,
                const View2<const int>& experts, int layer, const MoeStatistics& statistics) {
  const ArenaScope scope(context.scratch);
  const std::int64_t num_experts = scores.extent(1);
  const auto count_view = context.scratch.make1<int>(windows.count * num_experts);
  const View2<int> counts(count_view.data(), static_cast<std::size_t>(windows.count),
                          static_cast<std::size_t>(num_experts));
  const AnyView sums = context.scratch.make(scores.type(), windows.count, num_experts);
  ops::window_statistics(context.exec, scores, experts, windows.offsets, counts, sums);

  Balance result;
  result.slope = context.activations.make(scores.type(), windows.count, num_experts);
  result.z_scale = config.z_loss_coefficient * scale.per_token;
  const auto losses = context.scratch.make1<double>(windows.count);
  ops::switch_loss(context.exec, windows.offsets, counts, sums, config.top_k,
                   config.aux_loss_coefficient(), scale.per_window, losses, result.slope);
  if (lse.type() == DType::fp64) {
    add_statistics<double>(context.exec, losses, scale.per_window, lse.as1<double>(),
                           result.z_scale, counts, statistics.sums, layer);
  } else {
    add_statistics<float>(context.exec, losses, scale.per_window, lse.as1<float>(), result.z_scale,
                          counts, statistics.sums, layer);
  }
  return result;
}

}  // namespace konclave
