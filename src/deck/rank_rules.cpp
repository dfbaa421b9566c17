#include "deck/rank_rules.hpp"

#include "parallel/pipeline_layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace konclave {
namespace {

/// The largest number of ranks below these that the same sizes and this batch can run on; 0 when
/// there is none.
int fewer_ranks(const BatchConfig& batch, const RankGrids& grids) {
  const int dense = grids.ranks() / grids.dense.size("dp");
  const int unit = std::lcm(dense, grids.ranks() / grids.experts.size("edp"));
  int ranks = grids.ranks() - unit;
  while (ranks > 0 && batch.global_size % (std::int64_t{batch.micro_size} * (ranks / dense)) != 0) {
    ranks -= unit;
  }
  return ranks;
}

/// The smallest batch.global_size above this one that the schedule takes; 0 when no number of
/// micro-batches helps.
std::int64_t larger_batch(const BatchConfig& batch, const RankGrids& grids, PipelineShape shape) {
  const int most = 2 * std::max(shape.micro_batches, std::max(shape.group, shape.stages));
  while (++shape.micro_batches <= most) {
    if (!schedule_fault(shape).empty()) continue;
    return std::int64_t{shape.micro_batches} * batch.micro_size * grids.dense.size("dp");
  }
  return 0;
}

}  // namespace

int micro_batches_per_rank(const BatchConfig& batch, const RankGrids& grids) {
  const int dp = grids.dense.size("dp");
  const std::int64_t share = std::int64_t{batch.micro_size} * dp;
  if (batch.global_size % share == 0) return static_cast<int>(batch.global_size / share);

  const std::int64_t below = batch.global_size / share * share;
  const int ranks = fewer_ranks(batch, grids);
  fail(fmt::format(
           "batch.global_size = {} must be a multiple of batch.micro_size x dp = {} x {} "
           "on {} ranks; {}{} would do{}",
           batch.global_size, batch.micro_size, dp, grids.ranks(),
           below > 0 ? fmt::format("{} or ", below) : "", below + share,
           ranks > 0 ? fmt::format(", and so would {} rank{}", ranks, ranks > 1 ? "s" : "") : ""),
       ExitCode::resource);
}

PipelineShape make_pipeline_shape(const Deck& deck, const RankGrids& grids) {
  const BatchConfig& batch = deck.batch;
  const PipelineLayout layout =
      make_pipeline_layout(deck.parallel, deck.definition.model.num_layers);
  const PipelineShape shape{layout.stages(), layout.chunks(), micro_batches_per_rank(batch, grids),
                            deck.parallel.vpp_group_size};
  const std::string fault = schedule_fault(shape);
  if (fault.empty()) return shape;

  const std::int64_t larger = larger_batch(batch, grids, shape);
  fail(fmt::format("{}; on {} ranks, batch.global_size = {} over batch.micro_size x dp = {} x {} "
                   "makes {} of them{}",
                   fault, grids.ranks(), batch.global_size, batch.micro_size,
                   grids.dense.size("dp"), shape.micro_batches,
                   larger > 0 ? fmt::format(", and batch.global_size = {} would do", larger) : ""),
       ExitCode::resource);
}

RankGrids place_ranks(const Deck& deck, int ranks) {
  RankGrids grids = make_rank_grids(deck.parallel, ranks);
  make_pipeline_shape(deck, grids);
  return grids;
}

}  // namespace konclave
