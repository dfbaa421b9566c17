#pragma once

#include "comm/communicator.hpp"
#include "comm/transport.hpp"
#include "parallel/rank_grids.hpp"

#include <memory>

namespace konclave {

/// The groups of ranks that this rank belongs to; a copy is the same groups.
struct Groups {
  std::shared_ptr<const Transport> world;      ///< all ranks
  std::shared_ptr<const Transport> dp;         ///< share dense weights, have other sequences
  std::shared_ptr<const Transport> ep;         ///< hold the experts of one copy of the model
  std::shared_ptr<const Transport> expert_dp;  ///< hold the same experts

  /// One rank, without MPI.
  static Groups alone();
  /// Collective over `world`: communicators for each group of the grids.
  static Groups create(const Communicator& world, const RankGrids& grids);
};

}  // namespace konclave
