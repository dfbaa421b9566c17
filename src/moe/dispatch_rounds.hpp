#pragma once

#include <cstdint>
#include <vector>

namespace konclave {

/// How many rows of each source rank go to each expert.
/// counts[s * experts + e] are those of source s for expert e; rank r holds the experts
/// r * L .. (r + 1) * L - 1, with L = experts / ranks.
struct DispatchCounts {
  int ranks = 1, experts = 0;
  std::vector<std::int64_t> counts;

  int local() const { return experts / ranks; }
  std::int64_t operator()(int source, int expert) const {
    return counts[static_cast<std::size_t>(source) * static_cast<std::size_t>(experts) +
                  static_cast<std::size_t>(expert)];
  }
};

/// Rows that stay together on their way.
struct DispatchChunk {
  std::int64_t from = 0, to = 0, rows = 0;  ///< first row before, first row after
};

/// One exchange of rows between the ranks, seen from one of them.
struct DispatchRound {
  std::int64_t first_sent = 0, sent = 0;     ///< rows in the order of sending
  std::int64_t received = 0;                 ///< rows
  std::vector<std::int64_t> send_rows;       ///< to each rank
  std::vector<std::int64_t> receive_rows;    ///< from each rank
  std::vector<std::int64_t> expert_offsets;  ///< (L+1), rows of each local expert
  std::vector<DispatchChunk> to_local;       ///< order of arrival -> (expert, source, token)
};

/// The whole way: rows go round by round, in each round to rank 0 first, and to each rank in the
/// order of experts and tokens.
struct DispatchRounds {
  std::vector<DispatchRound> rounds;
  std::vector<DispatchChunk> to_send;  ///< (expert, token) -> order of sending
  std::int64_t largest = 0;            ///< most rows that this rank receives in a round
};

/// Plans the exchange for rank `rank`; every rank of the group plans the same number of rounds.
/// The rows for a rank, numbered in the order (expert, source, token), are cut into pieces of
/// `budget` rows, one for each round; without a budget (0) there is one round. Arithmetic alone:
/// experts x ranks numbers are looked at.
DispatchRounds plan_dispatch(const DispatchCounts& counts, int rank, std::int64_t budget);

}  // namespace konclave
