#pragma once

#include "deck/deck.hpp"
#include "parallel/rank_grids.hpp"

namespace konclave {

/// Micro-batches of one step on each rank: global_size / (micro_size dp). Throws Error(resource),
/// naming what would do, when that is no integer.
int micro_batches_per_rank(const BatchConfig& batch, const RankGrids& grids);

/// The grids of a checked deck on `ranks` ranks, once the rules hold that only their number
/// decides: those of make_rank_grids and micro_batches_per_rank.
RankGrids place_ranks(const Deck& deck, int ranks);

}  // namespace konclave
