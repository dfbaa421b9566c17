#pragma once

#include "comm/communicator.hpp"
#include "comm/traffic.hpp"
#include "comm/transport.hpp"
#include "parallel/rank_grids.hpp"

#include <memory>

namespace konclave {

/// The groups of ranks that this rank belongs to; a copy is the same groups.
struct Groups {
  using Group = std::shared_ptr<const Transport>;

  Group world;  ///< all ranks
  // Of the dense layers: ranks that differ only along these axes.
  Group tp;        ///< share the matrices and, with sequence parallelism, the rows of a micro-batch
  Group cp;        ///< share the positions of each sequence
  Group dp;        ///< have other sequences
  Group pp;        ///< share the layers; rank s is stage s
  Group tp_cp;     ///< share a micro-batch
  Group dp_cp;     ///< hold the same part of every matrix
  Group tp_dp_cp;  ///< hold the same layers
  // Of the experts.
  Group etp;        ///< share the matrices of the same experts
  Group ep;         ///< share the experts
  Group etp_ep;     ///< hold the experts of a layer together, once
  Group expert_dp;  ///< edp: hold the same part of the same experts

  ParallelConfig parallel;  ///< what the groups were made of

  /// One rank, without MPI.
  static Groups alone();
  /// Collective over `world`: communicators for each group of the grids. With a log, it has the
  /// communication of all groups of more than one rank.
  static Groups create(const Communicator& world, const RankGrids& grids,
                       const ParallelConfig& parallel,
                       const std::shared_ptr<CommunicationLog>& log = nullptr);
};

}  // namespace konclave
