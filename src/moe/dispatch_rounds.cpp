#include "moe/dispatch_rounds.hpp"

#include "base/error.hpp"

#include <algorithm>
#include <numeric>

namespace konclave {

namespace {

/// Rows for the experts of rank `rank` of ep.
std::int64_t rows_for(const DispatchCounts& counts, int rank) {
  std::int64_t rows = 0;
  for (int source = 0; source < counts.sources(); ++source) {
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
    for (int other = 0; other < counts.sources(); ++other) {
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

/// What `source` sends in a round, to each rank in the order of experts and tokens.
void plan_sending(const DispatchCounts& counts, int source, const std::vector<std::int64_t>& places,
                  std::int64_t index, std::int64_t budget, DispatchRounds& plan) {
  DispatchRound& round = plan.rounds[static_cast<std::size_t>(index)];
  round.send_rows.assign(static_cast<std::size_t>(counts.ep), 0);
  std::int64_t from = 0;  // in the order (expert, token)
  for (int expert = 0; expert < counts.experts; ++expert) {
    const std::int64_t rows = counts(source, expert);
    const Part part(places[static_cast<std::size_t>(expert)], rows, index, budget);
    if (part.rows > 0) {
      plan.to_send.push_back({from + part.first, round.first_sent + round.sent, part.rows});
      round.send_rows[static_cast<std::size_t>(expert / counts.local())] += part.rows;
      round.sent += part.rows;
    }
    from += rows;
  }
}

/// What each source has for the experts of a rank in a round.
struct Arrivals {
  std::vector<std::int64_t> rows;                  ///< of each source
  std::vector<std::vector<DispatchChunk>> chunks;  ///< of each source, `from` within it
};

/// Fills in the rows of the round that the experts of `rank` have, in the order (expert, source,
/// token).
Arrivals plan_experts(const DispatchCounts& counts, int rank, std::int64_t index,
                      std::int64_t budget, DispatchRound& round) {
  const auto sources = static_cast<std::size_t>(counts.sources());
  Arrivals arrivals{std::vector<std::int64_t>(sources, 0),
                    std::vector<std::vector<DispatchChunk>>(sources)};
  round.expert_offsets.assign(1, 0);
  std::int64_t place = 0;
  for (int l = 0; l < counts.local(); ++l) {
    for (std::size_t source = 0; source < sources; ++source) {
      const std::int64_t rows = counts(static_cast<int>(source), rank * counts.local() + l);
      const Part part(place, rows, index, budget);
      if (part.rows > 0) {
        arrivals.chunks[source].push_back({arrivals.rows[source], round.received, part.rows});
        arrivals.rows[source] += part.rows;
        round.received += part.rows;
      }
      place += rows;
    }
    round.expert_offsets.push_back(round.received);
  }
  return arrivals;
}

/// What `source` receives in a round, and its way to the order (expert, source, token). As sources
/// are numbered, what is gathered over etp lies in their order.
void plan_receiving(const DispatchCounts& counts, int source, std::int64_t index,
                    std::int64_t budget, DispatchRound& round) {
  const Arrivals arrivals = plan_experts(counts, source % counts.ep, index, budget, round);
  const auto first_of = [&](int etp_rank) { return arrivals.rows.begin() + etp_rank * counts.ep; };
  const auto own = first_of(source / counts.ep);
  round.receive_rows.assign(own, own + counts.ep);
  for (int t = 0; t < counts.etp; ++t) {
    round.gather_rows.push_back(std::accumulate(first_of(t), first_of(t + 1), std::int64_t{0}));
  }
  round.arrived = round.gather_rows[static_cast<std::size_t>(source / counts.ep)];
  std::int64_t gathered = 0;
  for (std::size_t s = 0; s < arrivals.rows.size(); ++s) {
    for (const DispatchChunk& chunk : arrivals.chunks[s]) {
      round.to_local.push_back({gathered + chunk.from, chunk.to, chunk.rows});
    }
    gathered += arrivals.rows[s];
  }
}

}  // namespace

DispatchRounds plan_dispatch(const DispatchCounts& counts, int source, std::int64_t budget) {
  require(counts.ep > 0 && counts.etp > 0 && counts.experts % counts.ep == 0 && budget >= 0,
          "plan_dispatch: experts must be a multiple of ep");
  std::int64_t most = 1;
  for (int rank = 0; rank < counts.ep; ++rank) most = std::max(most, rows_for(counts, rank));
  const std::int64_t piece = budget > 0 ? budget : most;
  const std::int64_t rounds = (most + piece - 1) / piece;
  const std::vector<std::int64_t> places = places_of(counts, source);

  DispatchRounds plan;
  plan.rounds.resize(static_cast<std::size_t>(rounds));
  std::int64_t sent = 0;
  for (std::int64_t index = 0; index < rounds; ++index) {
    DispatchRound& round = plan.rounds[static_cast<std::size_t>(index)];
    round.first_sent = sent;
    plan_sending(counts, source, places, index, piece, plan);
    plan_receiving(counts, source, index, piece, round);
    sent += round.sent;
    plan.largest = std::max(plan.largest, round.received);
  }
  return plan;
}

}  // namespace konclave
