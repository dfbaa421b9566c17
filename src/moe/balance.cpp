#include "moe/balance.hpp"

#include "base/fault.hpp"
#include "moe/running_load.hpp"
#include "ops/switch_loss.hpp"
#include "parallel/collectives.hpp"

namespace konclave {

namespace {

/// Counts n and sums of scores P of all sequences in one piece of memory, as one exchange wants
/// them.
struct SequenceSums {
  AnyView all;  ///< (2Q,E): counts, then sums of scores

  View2<double> half(std::int64_t index) const {
    const std::int64_t sequences = all.extent(0) / 2;
    return all.slice(index * sequences, sequences).as2<double>();
  }
  View2<double> counts() const { return half(0); }
  View2<double> scores() const { return half(1); }
};

/// The sums of all ranks that share the sequences.
SequenceSums sum_over(const Transport& sharing, const Context& context,
                      const ops::RouteStatistics& routed) {
  const std::int64_t sequences = routed.counts.extent_int(0), experts = routed.counts.extent_int(1);
  const SequenceSums mine{context.scratch.make(DType::fp64, 2 * sequences, experts)};
  Kokkos::deep_copy(context.exec, mine.counts(), routed.counts);
  Kokkos::deep_copy(context.exec, mine.scores(), routed.sums);
  if (sharing.size() == 1 || fault("balance.local_windows")) return mine;
  const SequenceSums whole{context.scratch.make(DType::fp64, 2 * sequences, experts)};
  all_reduce_in_order(context.exec, context.scratch, sharing, mine.all, whole.all);
  return whole;
}

/// to[w,e] = sum of from[q,e] over the sequences q of window w.
void add_sequences(const ExecSpace& exec, View2<const double> from, int per_window,
                   View2<double> to) {
  const std::int64_t experts = to.extent_int(1);
  Kokkos::parallel_for(
      "konclave::moe::add_sequences", Range(exec, 0, to.extent_int(0) * experts),
      KOKKOS_LAMBDA(const std::int64_t i) {
        const std::int64_t w = i / experts, e = i % experts;
        double sum = 0;
        for (std::int64_t q = w * per_window; q < (w + 1) * per_window; ++q) sum += from(q, e);
        to(w, e) = sum;
      });
}

/// The losses that one kind of count gives, by window or by sequence, with their slopes.
struct Losses {
  View1<double> values;
  AnyView slopes;
};

Losses switch_losses(const Context& context, std::int64_t tokens, const View2<const double>& counts,
                     const View2<const double>& sums, int top_k, double coefficient, double scale) {
  const std::int64_t parts = counts.extent_int(0);
  Losses losses{context.scratch.make1<double>(parts),
                context.scratch.make(DType::fp64, parts, counts.extent_int(1))};
  ops::switch_loss(context.exec, tokens, counts, sums, top_k, coefficient, scale, losses.values,
                   losses.slopes);
  return losses;
}

/// All terms of a micro-batch. Empty views stand for losses that nobody wants.
struct Terms {
  View1<double> of_windows, of_sequences;
  View2<const double> window_slopes, sequence_slopes;
  View1<const double> load;  ///< (E): of the global loss
  int layer, per_window;
  double per_window_scale, per_sequence_scale;  ///< of the statistics; 0 on all ranks but one
  double global_slope;                          ///< of a load of 1
  double z_strength, per_token;
};

/// The slopes of all kinds together.
template <typename A> void add_slopes(const ExecSpace& exec, Terms terms, View2<A> slope) {
  const std::int64_t experts = slope.extent_int(1);
  Kokkos::parallel_for(
      "konclave::moe::add_slopes", Range(exec, 0, slope.extent_int(0) * experts),
      KOKKOS_LAMBDA(const std::int64_t i) {
        const std::int64_t q = i / experts, e = i % experts;
        double sum = 0;
        if (terms.window_slopes.size() > 0) sum += terms.window_slopes(q / terms.per_window, e);
        if (terms.sequence_slopes.size() > 0) sum += terms.sequence_slopes(q, e);
        if (terms.global_slope > 0) sum += terms.global_slope * terms.load(e);
        slope(q, e) = static_cast<A>(sum);
      });
}

/// Adds the sums of one micro-batch to a layer's row: one thread, in a fixed order.
void add_statistics(const ExecSpace& exec, Terms terms, ops::RouteStatistics routed,
                    bool all_are_kept, View2<double> sums) {
  const int experts = routed.counts.extent_int(1);
  Kokkos::parallel_for(
      "konclave::moe::add_statistics", Range(exec, 0, 1), KOKKOS_LAMBDA(const std::int64_t) {
        const int layer = terms.layer;
        double aux = 0, seq_aux = 0, global = 0, squares = 0, entropy = 0;
        for (std::size_t w = 0; w < terms.of_windows.size(); ++w) aux += terms.of_windows(w);
        for (std::size_t q = 0; q < terms.of_sequences.size(); ++q) {
          seq_aux += terms.of_sequences(q);
        }
        for (int q = 0; q < routed.squares.extent_int(0); ++q) {
          squares += routed.squares(q);
          entropy += routed.entropy(q);
          for (int e = 0; e < experts; ++e) {
            sums(layer, MoeStatistics::chosen(e)) += routed.chosen(q, e);
            if (all_are_kept) sums(layer, MoeStatistics::kept(experts, e)) += routed.chosen(q, e);
            sums(layer, MoeStatistics::counted(experts, e)) += routed.counts(q, e);
            if (terms.global_slope > 0) global += routed.sums(q, e) * terms.load(e);
          }
        }
        sums(layer, MoeStatistics::kAuxLoss) += terms.per_window_scale * aux;
        sums(layer, MoeStatistics::kSeqAuxLoss) += terms.per_sequence_scale * seq_aux;
        sums(layer, MoeStatistics::kGlobalAuxLoss) += terms.global_slope * global;
        sums(layer, MoeStatistics::kZLoss) += terms.z_strength * squares;
        sums(layer, MoeStatistics::kEntropy) += terms.per_token * entropy;
      });
}

}  // namespace

Balance balance(const Context& context, const MoeConfig& config, const Transport& sharing,
                const Transport& dp, const MoeStep& step, const ops::RouteStatistics& routed,
                DType type, int layer) {
  if (!step.training) return {};
  const RoutingWindows& windows = step.windows;
  const BalanceScale& scale = step.scale;
  const ArenaScope scope(context.scratch);
  const int experts = config.num_experts, per_window = windows.sequences_per_window();
  const double one_rank = sharing.rank() == 0 ? 1 : 0;
  Terms terms{};
  terms.layer = layer;
  terms.per_window = per_window;
  terms.per_window_scale = one_rank * scale.per_window;
  terms.per_sequence_scale = one_rank * scale.per_sequence;
  if (config.goes_by_running_load()) {
    const auto load = context.scratch.make1<double>(experts);
    running_load(context, config, sharing, dp, step, routed.counts, layer, load);
    terms.load = load;
  } else if (config.goes_by_previous_load()) {
    const View2<const double>& loads = step.state.previous_load;
    terms.load = View1<const double>(loads.data() + layer * loads.extent(1), loads.extent(1));
  }
  terms.global_slope =
      config.aux_loss_coefficient("global_aux_loss") * experts / config.top_k * scale.per_token;
  terms.z_strength = config.z_loss_coefficient * scale.per_token;
  terms.per_token = scale.per_token;

  const double of_windows = config.aux_loss_coefficient("aux_loss");
  const double of_sequences = config.aux_loss_coefficient("seq_aux_loss");
  if (windows.count > 0 && (of_windows > 0 || of_sequences > 0)) {
    const SequenceSums whole = sum_over(sharing, context, routed);
    if (of_windows > 0) {
      const auto table = [&] {
        return context.scratch.make(DType::fp64, windows.count, experts).as2<double>();
      };
      const View2<double> counts = table(), sums = table();
      add_sequences(context.exec, whole.counts(), per_window, counts);
      add_sequences(context.exec, whole.scores(), per_window, sums);
      const Losses losses = switch_losses(context, windows.tokens, counts, sums, config.top_k,
                                          of_windows, scale.per_window);
      terms.of_windows = losses.values;
      terms.window_slopes = losses.slopes.as2<double>();
    }
    if (of_sequences > 0) {
      const Losses losses =
          switch_losses(context, windows.tokens / per_window, whole.counts(), whole.scores(),
                        config.top_k, of_sequences, scale.per_sequence);
      terms.of_sequences = losses.values;
      terms.sequence_slopes = losses.slopes.as2<double>();
    }
  }

  Balance result;
  result.slope = context.activations.make(type, windows.sequences, experts);
  result.z_scale = terms.z_strength;
  dispatch_accum(type, [&](auto tag) {
    using A = typename decltype(tag)::type;
    add_slopes<A>(context.exec, terms, result.slope.as2<A>());
  });
  if (step.counts) {
    add_statistics(context.exec, terms, routed, config.capacity_factor == 0, step.statistics.sums);
  }
  return result;
}

}  // namespace konclave
