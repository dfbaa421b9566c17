#pragma once

#include "parallel/rank_grids.hpp"

#include <string>

namespace konclave {

/// A table, as comments of a deck: for each rank its coordinates dp, ep and edp, and on the other
/// axes that are larger than 1. Above 32 ranks those in the middle are left out.
std::string rank_map(const RankGrids& grids);

}  // namespace konclave
