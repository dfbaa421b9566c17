#pragma once

#include "parallel/config.hpp"
#include "parallel/grid.hpp"

#include <string>

namespace konclave {

/// The two ways in which the same ranks are factored: axes tp, cp, dp and pp for dense layers,
/// etp, ep, edp and pp for experts. Both have the same pp groups.
struct RankGrids {
  Grid dense;
  Grid experts;

  int ranks() const { return dense.ranks(); }
};

/// Both grids, with dp = ranks / (tp cp pp) and edp = ranks / (etp ep pp). Their axes follow
/// parallel.order, where tp means etp too and dp means edp; those that it leaves out come last.
/// Throws Error(resource) when dp or edp would be no integer, Error(deck) when the order is wrong.
RankGrids make_rank_grids(const ParallelConfig& parallel, int ranks);

/// The fewest ranks that these sizes can run on. They run on the multiples of it and nothing else.
int smallest_ranks(const ParallelConfig& parallel);

/// Why `order` is none, as it follows the key's name in a message (` = "tp-tp": ...`), or "".
/// An order joins different ones of tp, cp, ep, dp and pp by "-".
std::string order_fault(const std::string& order);

/// Why parallel.order does not suit the sizes, in the same form, or "": a name of an axis larger
/// than 1 is left out, or pipeline stages of dense layers and experts would not be the same ranks.
/// As in Megatron, pp > 1 must come last unless dp = edp. `ranks`: a multiple of smallest_ranks.
std::string order_fault(const ParallelConfig& parallel, int ranks);

}  // namespace konclave
