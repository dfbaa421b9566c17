#include "moe/all_to_all_dispatcher.hpp"

#include "moe/expert_counts.hpp"
#include "moe/row_order.hpp"
#include "tensor/host_copy.hpp"

#include <limits>
#include <string>
#include <utility>

namespace konclave {

namespace {

using Leg = AllToAllDispatch::Leg;
using Sending = AllToAllDispatch::Sending;

Sending in_expert_order(const RoutingPlan& routing) {
  return {routing.token_offsets, routing.row_of};
}

Sending in_sending_order(const Context& context, const RoutingPlan& routing,
                         const std::vector<DispatchChunk>& to_send) {
  if (keep_their_places(to_send)) return in_expert_order(routing);
  const RowOrder order = make_row_order(context, to_send, routing.assignments());
  return {routing.token_offsets, compose(context, order.to_of, routing.row_of)};
}

Leg make_leg(const Context& context, DispatchRound counts) {
  Leg leg;
  if (!keep_their_places(counts.to_local)) {
    const RowOrder order = make_row_order(context, counts.to_local, counts.received);
    leg.arrival_of = order.from_of;
    leg.local_of = order.to_of;
  }
  leg.counts = std::move(counts);
  return leg;
}

/// One rank and one round: all rows are where they belong, and the host need not know how many each
/// expert has.
std::shared_ptr<const Dispatch> in_place(const AllToAllDispatch::Ranks& ranks,
                                         const RoutingPlan& routing) {
  const std::int64_t rows = routing.assignments();
  Leg leg;
  leg.counts.sent = leg.counts.arrived = leg.counts.received = rows;
  const std::vector<Dispatch::Round> rounds = {{rows, routing.expert_offsets}};
  return std::make_shared<AllToAllDispatch>(ranks, rounds, in_expert_order(routing),
                                            std::vector<Leg>{leg});
}

}  // namespace

AllToAllDispatcher::AllToAllDispatcher(const MoeConfig& config, const Groups& groups)
    : ranks_{groups.ep, groups.etp},
      num_experts_(config.num_experts),
      receive_budget_(config.receive_budget) {}

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
  if (ep.size() == 1 && etp.size() == 1 && receive_budget_ == 0) return in_place(ranks_, routing);
  DispatchRounds host = plan_dispatch(exchange_counts(context, routing),
                                      etp.rank() * ep.size() + ep.rank(), receive_budget_);
  require(host.largest <= std::numeric_limits<int>::max(),
          "the experts of one rank receive " + std::to_string(host.largest) +
              " rows at once; set moe.receive_budget",
          ExitCode::memory);
  std::vector<Dispatch::Round> rounds;
  std::vector<Leg> legs;
  for (DispatchRound& round : host.rounds) {
    const std::vector<int> offsets(round.expert_offsets.begin(), round.expert_offsets.end());
    rounds.push_back({round.received, upload(context.exec, context.activations, offsets)});
    legs.push_back(make_leg(context, std::move(round)));
  }
  return std::make_shared<AllToAllDispatch>(
      ranks_, std::move(rounds), in_sending_order(context, routing, host.to_send), std::move(legs));
}

}  // namespace konclave
