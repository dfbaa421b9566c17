#pragma once

#include "comm/row_blocks.hpp"

#include <cstdint>
#include <vector>

namespace konclave {

/// How many rows of each source go to each expert. The sources are the ranks that hold the experts
/// together: etp * ep of them, source t * ep + p being rank t of a group etp and rank p of a group
/// ep. counts[s * experts + e] are those of source s for expert e; all etp ranks with the same p
/// have parts of the experts p * L .. (p + 1) * L - 1, with L = experts / ep.
struct DispatchCounts {
  int ep = 1, experts = 0;
  std::vector<std::int64_t> counts;
  int etp = 1;

  int sources() const { return etp * ep; }
  int local() const { return experts / ep; }
  std::int64_t operator()(int source, int expert) const {
    return counts[static_cast<std::size_t>(source) * static_cast<std::size_t>(experts) +
                  static_cast<std::size_t>(expert)];
  }
};

/// Rows that stay together on their way.
struct DispatchChunk {
  std::int64_t from = 0, to = 0, rows = 0;  ///< first row before, first row after
};

/// One exchange of rows between the ranks, seen from one of them: rows arrive over ep in the order
/// (expert, rank of ep, token), and what arrived at each of the ranks of etp is gathered by all of
/// them in local order, (expert, source, token). All rows come to their place at once, and go home
/// from there: both sides know each block.
///
/// At home a row has a place in one order of all rounds. Rows for this rank itself stay where they
/// are wherever possible (`own_stays`): the places of a round then begin with all the rows that
/// arrive, in their order, of which only the own ones are at home, and the rows that are sent
/// follow. Else, where there are too many to have them all and several ranks of ep, the own rows
/// are sent like the others.
struct DispatchRound {
  bool own_stays = false;
  std::int64_t first_arrived = 0;  ///< place at home of those that arrive, if own ones stay
  std::int64_t first_sent = 0;     ///< place at home of those that are sent
  std::int64_t sent = 0, arrived = 0, received = 0;  ///< rows; the last in all, over etp too
  RowBlocks home;     ///< at home, to each rank of ep and back from it; those that stay are in it
  RowBlocks arrival;  ///< in the order of arrival, from each rank of ep; likewise
  RowBlocks local;    ///< in local order, from each rank of etp: what arrived there
  std::vector<std::int64_t> expert_offsets;  ///< (L+1), rows of each local expert
};

/// The whole way.
struct DispatchRounds {
  std::vector<DispatchRound> rounds;
  bool kept = true;  ///< whether a rank may have the rows of all rounds
  /// (expert, token) -> order at home. With one round an expert's rows stay together: one chunk for
  /// each of the experts, without rows where it has none.
  std::vector<DispatchChunk> to_home;
  std::int64_t at_home = 0;  ///< places there: rows sent, and those that arrive where own ones stay
  std::int64_t largest = 0;  ///< most rows that this rank receives in a round
};

/// How the rows for the experts of a rank, in the order (expert, source, token), are cut into
/// rounds.
struct DispatchCut {
  /// Rows that a rank may have at once; 0: no bound. A round has as many, but for the last.
  std::int64_t budget = 0;
  /// Whether a round travels beside another one: each rank's rows are cut into equal rounds then,
  /// of which two keep to the budget (one row each at the least), and of all there are kRounds, but
  /// none has less than kLeastRows on the rank with the most.
  bool overlaps = false;
  /// The first cannot hide behind work on another one, nor the last on its way back; each costs a
  /// latency and parts an expert's rows.
  static constexpr std::int64_t kRounds = 4, kLeastRows = 8;
};

/// Plans the exchange for source `source`; every source plans the same number of rounds. Arithmetic
/// alone: experts x sources numbers are looked at.
DispatchRounds plan_dispatch(const DispatchCounts& counts, int source, const DispatchCut& cut);

/// Blocks of rows without those of one rank.
RowBlocks without(RowBlocks blocks, int rank);
/// Places counted from another one on.
RowBlocks counted_from(std::int64_t first, RowBlocks blocks);

}  // namespace konclave
