#include "moe/all_to_all_way_back.hpp"

#include "base/fault.hpp"
#include "moe/row_order.hpp"
#include "ops/elementwise.hpp"
#include "parallel/collectives.hpp"

#include <algorithm>
#include <utility>

namespace konclave {

AllToAllWayBack::AllToAllWayBack(const Context& context, const AllToAllRoute& route,
                                 std::vector<AnyView> returned,
                                 std::vector<std::vector<AnyView>> work)
    : WayBack(work), route_(route) {
  for (std::size_t i = 0; i < returned.size(); ++i) {
    Lane& lane = lanes_.emplace_back();
    lane.returned = returned[i];
    lane.work = std::move(work[i]);
  }
  const std::vector<std::int64_t> arrived = route.arrived();
  if (route.overlaps) take_memory(context, *std::max_element(arrived.begin(), arrived.end()));
}

void AllToAllWayBack::take_memory(const Context& context, std::int64_t arrived) {
  if (!sums()) return;
  const bool all_stay = route_.legs.front().own_stays;
  for (Lane& lane : lanes_) {
    lane.partial = scratch_like(context, lane.returned, route_.ranks.etp->size() * arrived);
    lane.sum = scratch_like(context, lane.returned, all_stay ? 0 : arrived);
  }
}

AnyView AllToAllWayBack::outgoing(const Lane& lane, std::size_t round) const {
  const DispatchRound& leg = route_.legs[round];
  if (!sums()) return lane.work[round];
  return leg.own_stays ? lane.returned.slice(leg.first_arrived, leg.arrived)
                       : lane.sum.slice(0, leg.arrived);
}

void AllToAllWayBack::send_partial(const Context& context, std::size_t round) {
  const DispatchRound& leg = route_.legs[round];
  for (Lane& lane : lanes_) {
    const AnyView partial = lane.partial.slice(0, route_.ranks.etp->size() * leg.arrived);
    lane.over_etp.emplace(start_reduce_scatter(context.exec, *route_.ranks.etp, lane.work[round],
                                               leg.local, partial));
  }
}

/// This rank's rows of the sum of the partial results of etp, in the order of arrival.
void AllToAllWayBack::add_up(const Context& context, Lane& lane, std::size_t round) const {
  const DispatchRound& leg = route_.legs[round];
  const int ranks = route_.ranks.etp->size();
  const AnyView sum = outgoing(lane, round);
  lane.over_etp->wait(context.exec);
  lane.over_etp.reset();
  const bool values = lane.returned.rank() == 1;
  if (values ? fault("etp.weight_gradients") : fault("etp.partial_outputs")) {
    const std::int64_t own = route_.ranks.etp->rank() * leg.arrived;
    ops::cast(context.exec, lane.partial.slice(own, leg.arrived), sum);
    return;
  }
  const ArenaScope scope(context.scratch);
  sum_in_order(context.exec, context.scratch,
               lane.partial.slice(0, ranks * leg.arrived).reshape(ranks, sum.size()), sum);
}

void AllToAllWayBack::send_home(const Context& context, std::size_t round) {
  const DispatchRound& leg = route_.legs[round];
  const Transport& ep = *route_.ranks.ep;
  if (ep.size() == 1) return;
  const RowBlocks blocks = leg.own_stays ? without(leg.arrival, ep.rank()) : leg.arrival;
  for (Lane& lane : lanes_) {
    lane.home.push_back(ep.start_all_to_all_blocks(context.exec, outgoing(lane, round), blocks,
                                                   lane.returned, leg.home));
  }
}

void AllToAllWayBack::wait_at_home(const Context& context) {
  for (Lane& lane : lanes_) {
    for (Request& request : lane.home) request.wait(context.exec);
    lane.home.clear();
  }
}

/// What is summed over etp goes home, and what does so already leaves its memory to others.
void AllToAllWayBack::advance(const Context& context) {
  if (!route_.kept) wait_at_home(context);
  if (!summing_) return;
  for (Lane& lane : lanes_) add_up(context, lane, *summing_);
  send_home(context, *std::exchange(summing_, std::nullopt));
}

void AllToAllWayBack::set_off(const Context& context, std::size_t round) {
  if (!sums()) {
    send_home(context, round);
    return;
  }
  send_partial(context, round);
  summing_ = round;
}

void AllToAllWayBack::give(const Context& context, std::size_t round) {
  if (route_.overlaps) {
    advance(context);
    set_off(context, round);
    return;
  }
  const ArenaScope scope(context.scratch);
  take_memory(context, route_.legs[round].arrived);
  set_off(context, round);
  finish(context);
}

void AllToAllWayBack::finish(const Context& context) {
  advance(context);
  wait_at_home(context);
}

void AllToAllWayBack::poll() {
  for (Lane& lane : lanes_) {
    if (lane.over_etp) lane.over_etp->poll();
    for (Request& request : lane.home) request.poll();
  }
}

}  // namespace konclave
