#include "moe/dispatch_rounds.hpp"

#include "base/error.hpp"

#include <algorithm>

namespace konclave {

namespace {

std::int64_t rows_for(const DispatchCounts& counts, int rank) {
  std::int64_t rows = 0;
  for (int source = 0; source < counts.ranks; ++source) {
    for (int l = 0; l < counts.local(); ++l) rows += counts(source, rank * counts.local() + l);
  }
  return rows;
}

/// For each expert, where the rows of `source` begin among all rows of the expert's rank in the
/// order (expert, source, token).
std::vector<std::int64_t> places_of(const DispatchCounts& counts, int source) {
  std::vector<std::int64_t> places;
  std::int64_t next = 0;
  for (int expert = 0; expert < counts.experts; ++expert) {
    if (expert % counts.local() == 0) next = 0;
    for (int other = 0; other < counts.ranks; ++other) {
      if (other == source) places.push_back(next);
      next += counts(other, expert);
    }
  }
  return places;
}

/// Rows begin .. begin + rows - 1 of a rank as far as they are in a round, from `first` on.
struct Part {
  std::int64_t first = 0, rows = 0;

  Part(std::int64_t begin, std::int64_t all, std::int64_t round, std::int64_t budget) {
    const std::int64_t end = std::min(begin + all, (round + 1) * budget);
    first = std::max(begin, round * budget);
    rows = std::max<std::int64_t>(0, end - first);
    first -= begin;
  }
};

/// What this rank sends in a round, to each rank in the order of experts and tokens.
void plan_sending(const DispatchCounts& counts, int rank, const std::vector<std::int64_t>& places,
                  std::int64_t index, std::int64_t budget, DispatchRounds& plan) {
  DispatchRound& round = plan.rounds[static_cast<std::size_t>(index)];
  round.send_rows.assign(static_cast<std::size_t>(counts.ranks), 0);
  std::int64_t from = 0;  // in the order (expert, token)
  for (int expert = 0; expert < counts.experts; ++expert) {
    const std::int64_t rows = counts(rank, expert);
    const Part part(places[static_cast<std::size_t>(expert)], rows, index, budget);
    if (part.rows > 0) {
      plan.to_send.push_back({from + part.first, round.first_sent + round.sent, part.rows});
      round.send_rows[static_cast<std::size_t>(expert / counts.local())] += part.rows;
      round.sent += part.rows;
    }
    from += rows;
  }
}

/// What this rank receives in a round, and its way to the order (expert, source, token).
void plan_receiving(const DispatchCounts& counts, int rank, std::int64_t index, std::int64_t budget,
                    DispatchRound& round) {
  const int local = counts.local();
  const auto ranks = static_cast<std::size_t>(counts.ranks);
  round.receive_rows.assign(ranks, 0);
  round.expert_offsets.assign(1, 0);
  std::vector<std::vector<DispatchChunk>> chunks(ranks);  // of each source, `from` within it
  std::int64_t place = 0;
  for (int l = 0; l < local; ++l) {
    for (std::size_t source = 0; source < ranks; ++source) {
      const std::int64_t rows = counts(static_cast<int>(source), rank * local + l);
      const Part part(place, rows, index, budget);
      if (part.rows > 0) {
        chunks[source].push_back({round.receive_rows[source], round.received, part.rows});
        round.receive_rows[source] += part.rows;
        round.received += part.rows;
      }
      place += rows;
    }
    round.expert_offsets.push_back(round.received);
  }
  std::int64_t arrived = 0;
  for (std::size_t source = 0; source < ranks; ++source) {
    for (const DispatchChunk& chunk : chunks[source]) {
      round.to_local.push_back({arrived + chunk.from, chunk.to, chunk.rows});
    }
    arrived += round.receive_rows[source];
  }
}

}  // namespace

DispatchRounds plan_dispatch(const DispatchCounts& counts, int rank, std::int64_t budget) {
  require(counts.ranks > 0 && counts.experts % counts.ranks == 0 && budget >= 0,
          "plan_dispatch: experts must be a multiple of ranks");
  std::int64_t most = 1;
  for (int r = 0; r < counts.ranks; ++r) most = std::max(most, rows_for(counts, r));
  const std::int64_t piece = budget > 0 ? budget : most;
  const std::int64_t rounds = (most + piece - 1) / piece;
  const std::vector<std::int64_t> places = places_of(counts, rank);

  DispatchRounds plan;
  plan.rounds.resize(static_cast<std::size_t>(rounds));
  std::int64_t sent = 0;
  for (std::int64_t index = 0; index < rounds; ++index) {
    DispatchRound& round = plan.rounds[static_cast<std::size_t>(index)];
    round.first_sent = sent;
    plan_sending(counts, rank, places, index, piece, plan);
    plan_receiving(counts, rank, index, piece, round);
    sent += round.sent;
    plan.largest = std::max(plan.largest, round.received);
  }
  return plan;
}

}  // namespace konclave
