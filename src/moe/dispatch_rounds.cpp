#include "moe/dispatch_rounds.hpp"

#include "base/error.hpp"

#include <algorithm>

namespace konclave {

namespace {

/// Rows for the experts of each rank of ep.
std::vector<std::int64_t> rows_of_ranks(const DispatchCounts& counts) {
  std::vector<std::int64_t> rows(static_cast<std::size_t>(counts.ep), 0);
  for (int source = 0; source < counts.sources(); ++source) {
    for (int expert = 0; expert < counts.experts; ++expert) {
      rows[static_cast<std::size_t>(expert / counts.local())] += counts(source, expert);
    }
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

/// A round of each rank of ep: which of the rows for its experts are in it.
using Pieces = std::vector<RowBlock>;

/// Rows begin .. begin + rows - 1 of a rank as far as they are in a round, from `first` on.
struct Part {
  std::int64_t first = 0, rows = 0;

  Part(std::int64_t begin, std::int64_t all, const RowBlock& piece) {
    const std::int64_t end = std::min(begin + all, piece.first + piece.rows);
    first = std::max(begin, piece.first);
    rows = std::max<std::int64_t>(0, end - first);
    first -= begin;
  }
};

/// The pieces of each round, of the rows for each rank.
std::vector<Pieces> cut_rows(const std::vector<std::int64_t>& rows, const DispatchCut& cut,
                             bool kept) {
  const std::int64_t most = *std::max_element(rows.begin(), rows.end());
  std::int64_t rounds = 1, piece = most;
  if (!kept) {
    piece = cut.overlaps ? std::max<std::int64_t>(1, cut.budget / 2) : cut.budget;
    rounds = (most + piece - 1) / piece;
  } else if (cut.overlaps) {
    rounds = std::clamp<std::int64_t>(most / DispatchCut::kLeastRows, 1, DispatchCut::kRounds);
  }
  const auto begin_of = [&](std::int64_t round, std::int64_t all) {
    return cut.overlaps ? all * round / rounds : std::min(all, round * piece);
  };
  std::vector<Pieces> pieces(static_cast<std::size_t>(rounds));
  for (std::int64_t round = 0; round < rounds; ++round) {
    for (const std::int64_t all : rows) {
      const std::int64_t first = begin_of(round, all);
      pieces[static_cast<std::size_t>(round)].push_back({first, begin_of(round + 1, all) - first});
    }
  }
  return pieces;
}

/// Fills in what the experts of `source`'s rank of ep have in a round, and where it comes from.
void plan_receiving(const DispatchCounts& counts, int source, const Pieces& pieces,
                    DispatchRound& round) {
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
        const Part part(place, rows, pieces[static_cast<std::size_t>(rank)]);
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
                  const Pieces& pieces, DispatchRound& round, DispatchRounds& plan) {
  const auto own = static_cast<std::size_t>(source % counts.ep);
  const bool one_round = plan.rounds.size() == 1;
  round.own_stays = plan.kept || counts.ep == 1;
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
    const auto to = static_cast<std::size_t>(expert / counts.local());
    const Part part(places[static_cast<std::size_t>(expert)], rows, pieces[to]);
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

DispatchRounds plan_dispatch(const DispatchCounts& counts, int source, const DispatchCut& cut) {
  require(counts.ep > 0 && counts.etp > 0 && counts.experts % counts.ep == 0 && cut.budget >= 0,
          "plan_dispatch: experts must be a multiple of ep");
  const std::vector<std::int64_t> rows = rows_of_ranks(counts);
  const std::vector<std::int64_t> places = places_of(counts, source);

  DispatchRounds plan;
  plan.kept = cut.budget == 0 || *std::max_element(rows.begin(), rows.end()) <= cut.budget;
  const std::vector<Pieces> pieces = cut_rows(rows, cut, plan.kept);
  plan.rounds.resize(pieces.size());
  for (std::size_t index = 0; index < pieces.size(); ++index) {
    DispatchRound& round = plan.rounds[index];
    plan_receiving(counts, source, pieces[index], round);
    plan_sending(counts, source, places, pieces[index], round, plan);
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
