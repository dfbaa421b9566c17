#pragma once

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

/// One exchange of rows between the ranks, seen from one of them: rows arrive over ep, and what
/// arrived at each of the ranks of etp is gathered by all of them.
struct DispatchRound {
  std::int64_t first_sent = 0, sent = 0;     ///< rows in the order of sending
  std::int64_t arrived = 0, received = 0;    ///< rows over ep, and in all
  std::vector<std::int64_t> send_rows;       ///< to each rank of ep
  std::vector<std::int64_t> receive_rows;    ///< from each rank of ep
  std::vector<std::int64_t> gather_rows;     ///< from each rank of etp: what arrived there
  std::vector<std::int64_t> expert_offsets;  ///< (L+1), rows of each local expert
  std::vector<DispatchChunk> to_local;       ///< order of arrival -> (expert, source, token)
};

/// The whole way: rows go round by round, in each round to rank 0 of ep first, and to each rank in
/// the order of experts and tokens.
struct DispatchRounds {
  std::vector<DispatchRound> rounds;
  std::vector<DispatchChunk> to_send;  ///< (expert, token) -> order of sending
  std::int64_t largest = 0;            ///< most rows that this rank receives in a round
};

/// Plans the exchange for source `source`; every source plans the same number of rounds. The rows
/// for the experts of a rank, numbered in the order (expert, source, token), are cut into pieces of
/// `budget` rows, one for each round; without a budget (0) there is one round. Arithmetic alone:
/// experts x sources numbers are looked at.
DispatchRounds plan_dispatch(const DispatchCounts& counts, int source, std::int64_t budget);

}  // namespace konclave
