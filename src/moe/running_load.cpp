#include "moe/running_load.hpp"

#include "parallel/collectives.hpp"

namespace konclave {

namespace {

/// to[0,e] = sum of counts[q,e] over the sequences q.
void sum_sequences(const ExecSpace& exec, View2<const double> counts, View2<double> to) {
  Kokkos::parallel_for(
      "konclave::moe::sum_sequences", Range(exec, 0, to.extent_int(1)),
      KOKKOS_LAMBDA(const std::int64_t e) {
        double sum = 0;
        for (int q = 0; q < counts.extent_int(0); ++q) sum += counts(q, e);
        to(0, e) = sum;
      });
}

/// The row of this micro-batch = that of the one before + counts.
void add_counts(const ExecSpace& exec, RunningCounts running, int layer,
                View2<const double> counts) {
  Kokkos::parallel_for(
      "konclave::moe::add_counts", Range(exec, 0, counts.extent_int(1)),
      KOKKOS_LAMBDA(const std::int64_t e) {
        const std::int64_t row = running.row(layer);
        const double before = running.micro_batch > 0 ? running.sums(row - running.layers, e) : 0;
        running.sums(row, e) = before + counts(0, e);
      });
}

/// One thread for each expert: all sum the few counts in the same order. Without tokens it is 0.
void divide(const ExecSpace& exec, RunningCounts running, int layer, int top_k,
            View1<double> load) {
  Kokkos::parallel_for(
      "konclave::moe::divide_counts", Range(exec, 0, load.extent_int(0)),
      KOKKOS_LAMBDA(const std::int64_t e) {
        const std::int64_t row = running.row(layer);
        double all = 0;
        for (int i = 0; i < load.extent_int(0); ++i) all += running.sums(row, i);
        load(e) = all > 0 ? top_k * running.sums(row, e) / all : 0;
      });
}

}  // namespace

void running_load(const Context& context, const MoeConfig& config, const Transport& sharing,
                  const Transport& dp, const MoeStep& step, const View2<const double>& counts,
                  int layer, const View1<double>& load) {
  if (step.counts) {
    const ArenaScope scope(context.scratch);
    const AnyView all = context.scratch.make(DType::fp64, 1, config.num_experts);
    sum_sequences(context.exec, counts, all.as2<double>());
    for (const Transport* const group : {&sharing, &dp}) {
      if (group->size() > 1) all_reduce_in_order(context.exec, context.scratch, *group, all, all);
    }
    add_counts(context.exec, step.running, layer, all.as2<double>());
  }
  divide(context.exec, step.running, layer, config.top_k, load);
}

}  // namespace konclave
