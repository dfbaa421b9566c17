#pragma once

#include "deck/deck.hpp"
#include "parallel/rank_grids.hpp"
#include "parallel/schedule.hpp"

namespace konclave {

/// Micro-batches of one step on each rank: global_size / (micro_size dp). Throws Error(resource),
/// naming what would do, when that is no integer.
int micro_batches_per_rank(const BatchConfig& batch, const RankGrids& grids);

/// The pipeline of a checked deck on these grids. Throws Error(resource), naming what would do,
/// when there is no schedule for its micro-batches.
PipelineShape make_pipeline_shape(const Deck& deck, const RankGrids& grids);

/// The grids of a checked deck on `ranks` ranks, once the rules hold that only their number
/// decides: those of make_rank_grids, micro_batches_per_rank and make_pipeline_shape.
RankGrids place_ranks(const Deck& deck, int ranks);

}  // namespace konclave
