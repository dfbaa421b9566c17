// Rank arithmetic for 16,384 ranks, and the schedule and layout of a deep pipeline.

#include "parallel/pipeline_layout.hpp"
#include "parallel/rank_grids.hpp"
#include "parallel/schedule.hpp"

#include <benchmark/benchmark.h>

namespace konclave {
namespace {

using Names = std::vector<std::string>;

constexpr int kRanks = 16'384;

/// tp 8, cp 2, dp 64, pp 16 for dense layers; ep 64, edp 16 for experts.
ParallelConfig large_mapping() {
  ParallelConfig parallel;
  parallel.tp = 8;
  parallel.cp = 2;
  parallel.pp = 16;
  parallel.ep = 64;
  return parallel;
}

std::vector<Names> dense_groups() {
  return {{"tp"}, {"cp"}, {"dp"}, {"pp"}, {"dp", "cp"}, {"tp", "cp"}, {"tp", "dp", "cp"}};
}
std::vector<Names> expert_groups() {
  return {{"etp"}, {"ep"}, {"edp"}, {"pp"}, {"etp", "ep"}, {"etp", "ep", "pp"}};
}

/// What a rank computes of the world when it starts: both grids, and each group's colour and
/// members.
void one_rank(benchmark::State& state) {
  const int rank = kRanks / 3;
  for (auto _ : state) {
    const RankGrids grids = make_rank_grids(large_mapping(), kRanks);
    for (const Names& along : dense_groups()) {
      benchmark::DoNotOptimize(grids.dense.color(rank, along));
      benchmark::DoNotOptimize(grids.dense.members(rank, along));
    }
    for (const Names& along : expert_groups()) {
      benchmark::DoNotOptimize(grids.experts.color(rank, along));
      benchmark::DoNotOptimize(grids.experts.members(rank, along));
    }
  }
}
BENCHMARK(one_rank)->Unit(benchmark::kMicrosecond);

void make_grids(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(make_rank_grids(large_mapping(), kRanks));
}
BENCHMARK(make_grids)->Unit(benchmark::kMicrosecond);

/// Colours of all ranks, of all groups of both grids.
void colours_of_all_ranks(benchmark::State& state) {
  const RankGrids grids = make_rank_grids(large_mapping(), kRanks);
  for (auto _ : state) {
    for (int rank = 0; rank < kRanks; ++rank) {
      for (const Names& along : dense_groups())
        benchmark::DoNotOptimize(grids.dense.color(rank, along));
      for (const Names& along : expert_groups())
        benchmark::DoNotOptimize(grids.experts.color(rank, along));
    }
  }
  state.SetItemsProcessed(state.iterations() * kRanks);
}
BENCHMARK(colours_of_all_ranks)->Unit(benchmark::kMillisecond);

void schedules_of_all_stages(benchmark::State& state) {
  const PipelineShape shape{16, 8, 128};
  for (auto _ : state) {
    for (int stage = 0; stage < shape.stages; ++stage) {
      const std::vector<PipelineWork> schedule = pipeline_schedule(shape, stage);
      benchmark::DoNotOptimize(slots_in_flight(schedule));
    }
  }
}
BENCHMARK(schedules_of_all_stages)->Unit(benchmark::kMicrosecond);

void even_layout(benchmark::State& state) {
  ParallelConfig parallel = large_mapping();
  parallel.vpp = 8;
  for (auto _ : state) benchmark::DoNotOptimize(make_pipeline_layout(parallel, 128));
}
BENCHMARK(even_layout)->Unit(benchmark::kMicrosecond);

void layout_by_text(benchmark::State& state) {
  ParallelConfig parallel = large_mapping();
  parallel.layout = "Et|(t|)*126tL";
  for (auto _ : state) benchmark::DoNotOptimize(make_pipeline_layout(parallel, 128));
}
BENCHMARK(layout_by_text)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace konclave

BENCHMARK_MAIN();
