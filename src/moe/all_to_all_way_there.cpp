#include "moe/all_to_all_way_there.hpp"

#include "base/fault.hpp"
#include "moe/row_order.hpp"
#include "ops/elementwise.hpp"

#include <algorithm>
#include <utility>

namespace konclave {

namespace {

/// As if rows arrived in the order (rank, expert): a mistake for tests.
RowBlocks in_order_of_ranks(RowBlocks blocks) {
  std::int64_t row = 0;
  for (std::vector<RowBlock>& of_rank : blocks) {
    for (RowBlock& block : of_rank) {
      block.first = row;
      row += block.rows;
    }
  }
  return blocks;
}

}  // namespace

/// By turns, what is sent is gone before the next round is, and what arrives has been gathered
/// before the next but one does.
AllToAllWayThere::AllToAllWayThere(const Context& context, const AllToAllRoute& route,
                                   std::vector<Dispatch::Brought> brought)
    : route_(route) {
  const std::size_t rounds = route.legs.size();
  for (Dispatch::Brought& what : brought) {
    Lane& lane = lanes_.emplace_back();
    lane.arrived = what.to;
    lane.what = std::move(what);
    lane.sent.resize(rounds);
    if (!route.overlaps) continue;
    const AnyIn& like = lane.what.from;
    lane.sent = scratch_by_turns(context, like, route.sent(), all_at_once() ? rounds : 1);
    if (!gathers()) continue;
    lane.arrived = scratch_by_turns(context, like, route.arrived(), 2);
  }
}

void AllToAllWayThere::send(const Context& context) {
  const std::size_t round = sent_++;
  const DispatchRound& leg = route_.legs[round];
  const Transport& ep = *route_.ranks.ep;
  const Lane& rows = lanes_.front();
  ops::RowValues weights;
  ops::RowTarget own;
  if (leg.own_stays) own = {leg.first_arrived, rows.arrived[round], {}};
  if (lanes_.size() > 1) {
    weights = {lanes_[1].what.from, lanes_[1].sent[round]};
    if (leg.own_stays) own.values = lanes_[1].arrived[round];
  }
  ops::permute_rows(context.exec, rows.what.from, route_.home.token_offsets, route_.home.places,
                    leg.first_sent, rows.sent[round], weights, own);
  if (ep.size() == 1) return;
  const RowBlocks blocks =
      counted_from(leg.first_sent, leg.own_stays ? without(leg.home, ep.rank()) : leg.home);
  for (Lane& lane : lanes_) {
    const bool unsorted = &lane != &lanes_.front() && fault("dispatch.weights_unsorted");
    lane.over_ep.push_back(
        ep.start_all_to_all_blocks(context.exec, lane.sent[round], blocks, lane.arrived[round],
                                   unsorted ? in_order_of_ranks(leg.arrival) : leg.arrival));
  }
}

/// All ranks of etp get all that arrived here.
void AllToAllWayThere::pass_on(const Context& context) {
  const std::size_t round = passed_on_++;
  const DispatchRound& leg = route_.legs[round];
  const Transport& etp = *route_.ranks.etp;
  for (Lane& lane : lanes_) {
    if (route_.ranks.ep->size() > 1) {
      lane.over_ep.front().wait(context.exec);
      lane.over_ep.pop_front();
    }
    if (!gathers()) continue;
    const RowBlocks send(static_cast<std::size_t>(etp.size()),
                         packed(leg.local[static_cast<std::size_t>(etp.rank())]));
    lane.over_etp.emplace(etp.start_all_to_all_blocks(context.exec, lane.arrived[round], send,
                                                      lane.what.to[round], leg.local));
  }
}

void AllToAllWayThere::receive(const Context& context, std::size_t round) {
  for (Lane& lane : lanes_) {
    if (lane.over_etp) lane.over_etp->wait(context.exec);
    lane.over_etp.reset();
  }
  // As if the experts had not waited for a later round.
  if (route_.overlaps && round > 0 && fault("overlap_ep.not_awaited")) {
    ops::fill_zero(context.exec, lanes_.front().what.to[round]);
  }
}

void AllToAllWayThere::send_before(const Context& context, std::size_t rounds) {
  while (sent_ < std::min(rounds, route_.legs.size())) send(context);
}

void AllToAllWayThere::pass_on_before(const Context& context, std::size_t rounds) {
  while (passed_on_ < std::min(rounds, route_.legs.size())) {
    send_before(context, passed_on_ + 1);
    pass_on(context);
  }
}

void AllToAllWayThere::start(const Context& context) {
  if (!route_.overlaps) return;
  send_before(context, all_at_once() ? route_.legs.size() : 1);
  if (route_.ranks.ep->size() == 1) pass_on_before(context, 1);
}

void AllToAllWayThere::arrive(const Context& context, std::size_t round) {
  if (!route_.overlaps) {
    const ArenaScope scope(context.scratch);
    for (Lane& lane : lanes_) {
      const DispatchRound& leg = route_.legs[round];
      lane.sent[round] = scratch_like(context, lane.what.from, leg.sent);
      if (gathers()) lane.arrived[round] = scratch_like(context, lane.what.from, leg.arrived);
    }
    pass_on_before(context, round + 1);
    receive(context, round);
    return;
  }
  pass_on_before(context, round + 1);
  send_before(context, round + 2);
  receive(context, round);
  if (!gathers()) return;
  pass_on_before(context, round + 2);
  if (route_.ranks.ep->size() > 1) send_before(context, round + 3);
}

void AllToAllWayThere::poll() {
  for (Lane& lane : lanes_) {
    for (Request& request : lane.over_ep) request.poll();
    if (lane.over_etp) lane.over_etp->poll();
  }
}

}  // namespace konclave
