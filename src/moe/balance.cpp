#include "moe/balance.hpp"

#include "base/fault.hpp"
#include "ops/router.hpp"
#include "parallel/collectives.hpp"

namespace konclave {

namespace {

/// n and P of all windows in one piece of memory, as one exchange wants them.
struct WindowSums {
  AnyView all;  ///< (2W,E): counts, then sums of scores

  View2<double> half(std::int64_t index) const {
    const std::int64_t windows = all.extent(0) / 2;
    return all.slice(index * windows, windows).as2<double>();
  }
  View2<double> counts() const { return half(0); }
  View2<double> scores() const { return half(1); }
};

/// The sums of all ranks that share the windows.
WindowSums sum_over(const Transport& sharing, const Context& context, const WindowSums& mine) {
  if (sharing.size() == 1 || fault("balance.local_windows")) return mine;
  const WindowSums whole{context.scratch.make(DType::fp64, mine.all.extent(0), mine.all.extent(1))};
  all_reduce_in_order(context.exec, context.scratch, sharing, mine.all, whole.all);
  return whole;
}

/// Adds the sums of one micro-batch to a layer's row: one thread, in a fixed order.
template <typename A>
void add_statistics(const ExecSpace& exec, View1<const double> losses, double per_window,
                    View1<const A> lse, double z_strength, View2<const double> counts,
                    View2<double> sums, int layer) {
  const int experts = counts.extent_int(1);
  Kokkos::parallel_for(
      "konclave::moe::add_statistics", Range(exec, 0, 1), KOKKOS_LAMBDA(const std::int64_t) {
        double aux = 0, squares = 0;
        for (int w = 0; w < losses.extent_int(0); ++w) aux += losses(w);
        for (int t = 0; t < lse.extent_int(0); ++t) {
          squares += static_cast<double>(lse(t)) * static_cast<double>(lse(t));
        }
        sums(layer, MoeStatistics::kAuxLoss) += per_window * aux;
        sums(layer, MoeStatistics::kZLoss) += z_strength * squares;
        for (int w = 0; w < counts.extent_int(0); ++w) {
          for (int e = 0; e < experts; ++e) {
            sums(layer, MoeStatistics::kTerms + e) += counts(w, e);
            sums(layer, MoeStatistics::kTerms + experts + e) += counts(w, e);
          }
        }
      });
}

}  // namespace

Balance balance(const Context& context, const MoeConfig& config, const Transport& sharing,
                const MoeStep& step, const AnyIn& scores, const AnyIn& lse,
                const View2<const int>& experts, int layer) {
  const RoutingWindows& windows = step.windows;
  const ArenaScope scope(context.scratch);
  const std::int64_t num_experts = scores.extent(1);
  const WindowSums mine{
      context.scratch.make(DType::fp64, 2 * std::int64_t{windows.count}, num_experts)};
  ops::window_statistics(context.exec, scores, experts, windows.offsets, mine.counts(),
                         mine.scores());
  const double coefficient = config.aux_loss_coefficient();
  const WindowSums whole = coefficient == 0 ? mine : sum_over(sharing, context, mine);

  Balance result;
  result.slope = context.activations.make(scores.type(), windows.count, num_experts);
  result.z_scale = config.z_loss_coefficient * step.scale.per_token;
  const auto losses = context.scratch.make1<double>(windows.count);
  ops::switch_loss(context.exec, windows.tokens, whole.counts(), whole.scores(), config.top_k,
                   coefficient, step.scale.per_window, losses, result.slope);
  const double per_window = sharing.rank() == 0 ? step.scale.per_window : 0;
  if (lse.type() == DType::fp64) {
    add_statistics<double>(context.exec, losses, per_window, lse.as1<double>(), result.z_scale,
                           mine.counts(), step.statistics.sums, layer);
  } else {
    add_statistics<float>(context.exec, losses, per_window, lse.as1<float>(), result.z_scale,
                          mine.counts(), step.statistics.sums, layer);
  }
  return result;
}

}  // namespace konclave
