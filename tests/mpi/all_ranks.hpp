#pragma once

#include "parallel/groups.hpp"

#include <string>
#include <vector>

namespace konclave {

/// All ranks of a test, of which `ep` each share the experts.
struct AllRanks {
  explicit AllRanks(int ep = 1, const std::string& order = "tp-cp-ep-dp-pp")
      : AllRanks(config(ep, order)) {}
  explicit AllRanks(const ParallelConfig& parallel)
      : world(Communicator::world()),
        grids(make_rank_grids(parallel, world.size())),
        groups(Groups::create(world, grids, parallel)) {}

  static ParallelConfig config(int ep, const std::string& order) {
    ParallelConfig parallel;
    parallel.ep = ep;
    parallel.order = order;
    return parallel;
  }

  Communicator world;
  RankGrids grids;
  Groups groups;
};

/// The sizes that a group ep can have on so many ranks.
inline std::vector<int> ep_sizes(int ranks) {
  std::vector<int> sizes;
  for (int ep = 1; ep <= ranks; ++ep) {
    if (ranks % ep == 0) sizes.push_back(ep);
  }
  return sizes;
}

}  // namespace konclave
