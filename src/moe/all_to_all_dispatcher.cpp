#include "moe/all_to_all_dispatcher.hpp"

#include "moe/expert_counts.hpp"
#include "moe/row_order.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

namespace konclave {

namespace {

using Home = AllToAllRoute::Home;

/// With one round a shift for each expert brings its rows to their places; with several, rows of an
/// expert part, and places are written down.
Home places_at_home(const Context& context, const RoutingPlan& routing,
                    const DispatchRounds& plan) {
  Home home{routing.token_offsets, routing.row_of, plan.at_home};
  if (keep_their_places(plan.to_home)) return home;
  if (plan.rounds.size() == 1) {
    std::vector<int> shifts;
    for (const DispatchChunk& chunk : plan.to_home) {
      shifts.push_back(static_cast<int>(chunk.to - chunk.from));
    }
    home.places = {routing.row_of, routing.expert_ids,
                   upload(context.exec, context.activations, shifts)};
  } else {
    home.places = compose(context, places_after(context, plan.to_home, routing.assignments()),
                          routing.row_of);
  }
  return home;
}

/// One rank and one round: all rows are where they belong, and the host need not know how many each
/// expert has.
std::shared_ptr<const Dispatch> in_place(const AllToAllRoute::Ranks& ranks,
                                         const RoutingPlan& routing) {
  const std::int64_t rows = routing.assignments();
  DispatchRound leg;
  leg.own_stays = true;
  leg.arrived = leg.received = rows;
  leg.first_sent = rows;
  const std::vector<Dispatch::Round> rounds = {{rows, routing.expert_offsets}};
  return std::make_shared<AllToAllDispatch>(
      AllToAllRoute{ranks, {routing.token_offsets, routing.row_of, rows}, {leg}}, rounds);
}

}  // namespace

AllToAllDispatcher::AllToAllDispatcher(const MoeConfig& config, const Groups& groups)
    : ranks_{groups.ep, groups.etp},
      num_experts_(config.num_experts),
      cut_{config.receive_budget, groups.parallel.overlap_ep && groups.etp_ep->size() > 1} {}

/// First over ep, then what the ranks of ep have gathered over etp: sources are then in the order
/// that plan_dispatch numbers them in, whatever the order of ranks is.
DispatchCounts AllToAllDispatcher::exchange_counts(const Context& context,
                                                   const RoutingPlan& routing) const {
  std::vector<std::int64_t> counts = expert_counts(context, routing);
  for (const Transport* group : {ranks_.ep.get(), ranks_.etp.get()}) {
    if (group->size() > 1) counts = gather_counts(*group, counts);
  }
  return {ranks_.ep->size(), num_experts_, std::move(counts), ranks_.etp->size()};
}

std::shared_ptr<const Dispatch> AllToAllDispatcher::plan(const Context& context,
                                                         const RoutingPlan& routing) const {
  const Transport &ep = *ranks_.ep, &etp = *ranks_.etp;
  if (ep.size() == 1 && etp.size() == 1 && cut_.budget == 0) return in_place(ranks_, routing);
  DispatchRounds host =
      plan_dispatch(exchange_counts(context, routing), etp.rank() * ep.size() + ep.rank(), cut_);
  require(std::max(host.largest, host.at_home) <= std::numeric_limits<int>::max(),
          "the experts of one rank receive " + std::to_string(host.largest) +
              " rows at once; set moe.receive_budget",
          ExitCode::memory);
  std::vector<Dispatch::Round> rounds;
  for (const DispatchRound& round : host.rounds) {
    const std::vector<int> offsets(round.expert_offsets.begin(), round.expert_offsets.end());
    rounds.push_back({round.received, upload(context.exec, context.activations, offsets)});
  }
  const Home home = places_at_home(context, routing, host);
  return std::make_shared<AllToAllDispatch>(
      AllToAllRoute{ranks_, home, std::move(host.rounds), host.kept, cut_.overlaps},
      std::move(rounds));
}

}  // namespace konclave
