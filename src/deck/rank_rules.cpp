#include "deck/rank_rules.hpp"

#include <fmt/format.h>

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

RankGrids place_ranks(const Deck& deck, int ranks) {
  RankGrids grids = make_rank_grids(deck.parallel, ranks);
  micro_batches_per_rank(deck.batch, grids);
  return grids;
}

}  // namespace konclave
