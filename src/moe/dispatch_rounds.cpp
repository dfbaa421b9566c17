#include "moe/dispatch_rounds.hpp"

#include "base/error.hpp"

#include <algorithm>

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

/// Fills in what the experts of `source`'s rank of ep have in a round, and where it comes from.
void plan_receiving(const DispatchCounts& counts, int source, std::int64_t index,
                    std::int64_t budget, DispatchRound& round) {
  const int own_slice = source / counts.ep, rank = source % counts.ep;
  round.arrival.resize(static_cast<std::size_t>(counts.ep));
  round.local.resize(static_cast<std::size_t>(counts.etp));
  round.expert_offsets.assign(1, 0);
  std::int64_t place = 0;
  for (int l = 0; l < counts.local(); ++l) {
    for (int slice = 0; slice < counts.etp; ++slice) {
      RowBlock gathered{round.received, 0};
      for (int p = 0; p < counts.ep; ++p) {
        const std::int64_t rows = counts(slice * counts.ep + p, rank * counts.local() + l);
        const Part part(place, rows, index, budget);
        place += rows;
        if (part.rows == 0) continue;
        gathered.rows += part.rows;
        if (slice != own_slice) continue;
        round.arrival[static_cast<std::size_t>(p)].push_back({round.arrived, part.rows});
        round.arrived += part.rows;
      }
      round.received += gathered.rows;
      if (gathered.rows > 0) round.local[static_cast<std::size_t>(slice)].push_back(gathered);
    }
    round.expert_offsets.push_back(round.received);
  }
}

/// What `source` sends in a round, to each rank in the order of experts and tokens.
void plan_sending(const DispatchCounts& counts, int source, const std::vector<std::int64_t>& places,
                  std::int64_t index, std::int64_t budget, DispatchRounds& plan) {
  DispatchRound& round = plan.rounds[static_cast<std::size_t>(index)];
  const auto own = static_cast<std::size_t>(source % counts.ep);
  const bool one_round = plan.rounds.size() == 1;
  round.own_stays = one_round || counts.ep == 1;
  round.first_arrived = plan.at_home;
  round.first_sent = plan.at_home + (round.own_stays ? round.arrived : 0);
  round.home.resize(static_cast<std::size_t>(counts.ep));
  if (round.own_stays) {
    for (const RowBlock& block : round.arrival[own]) {
      round.home[own].push_back({round.first_arrived + block.first, block.rows});
    }
  }
  auto stays = round.home[own].begin();
  std::int64_t from = 0;  // in the order (expert, token)
  for (int expert = 0; expert < counts.experts; ++expert) {
    const std::int64_t rows = counts(source, expert);
    const Part part(places[static_cast<std::size_t>(expert)], rows, index, budget);
    const auto to = static_cast<std::size_t>(expert / counts.local());
    RowBlock block{round.first_sent + round.sent, part.rows};
    if (part.rows > 0 && round.own_stays && to == own) {
      block = *stays++;
    } else if (part.rows > 0) {
      round.home[to].push_back(block);
      round.sent += part.rows;
    }
    if (part.rows > 0 || one_round)
      plan.to_home.push_back({from + part.first, block.first, part.rows});
    from += rows;
  }
  plan.at_home = round.first_sent + round.sent;
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
  for (std::int64_t index = 0; index < rounds; ++index) {
    DispatchRound& round = plan.rounds[static_cast<std::size_t>(index)];
    plan_receiving(counts, source, index, piece, round);
    plan_sending(counts, source, places, index, piece, plan);
    plan.largest = std::max(plan.largest, round.received);
  }
  return plan;
}

RowBlocks without(RowBlocks blocks, int rank) {
  blocks[static_cast<std::size_t>(rank)].clear();
  return blocks;
}

RowBlocks counted_from(std::int64_t first, RowBlocks blocks) {
  for (std::vector<RowBlock>& of_rank : blocks) {
    for (RowBlock& block : of_rank) block.first -= first;
  }
  return blocks;
}

}  // namespace konclave
