#include "moe/all_to_all_dispatch.hpp"

#include "base/fault.hpp"
#include "moe/row_order.hpp"
#include "ops/elementwise.hpp"
#include "ops/permute.hpp"
#include "parallel/collectives.hpp"

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

AllToAllDispatch::AllToAllDispatch(Ranks ranks, std::vector<Round> rounds, Home home,
                                   std::vector<DispatchRound> legs)
    : Dispatch(std::move(rounds)),
      ranks_(std::move(ranks)),
      home_(std::move(home)),
      legs_(std::move(legs)) {}

AllToAllDispatch::Transfer AllToAllDispatch::make_transfer(const Context& context,
                                                           const DispatchRound& leg, const AnyIn& x,
                                                           const AnyView& rows) const {
  const AnyView arrived = ranks_.etp->size() == 1 ? rows : scratch_like(context, x, leg.arrived);
  return {scratch_like(context, x, leg.sent), arrived, rows, std::nullopt};
}

void AllToAllDispatch::start_bringing(const Context& context, const DispatchRound& leg,
                                      const RowBlocks& arrival, Transfer& transfer) const {
  const Transport& ep = *ranks_.ep;
  if (ep.size() == 1) return;
  const RowBlocks send =
      counted_from(leg.first_sent, leg.own_stays ? without(leg.home, ep.rank()) : leg.home);
  transfer.request.emplace(
      ep.start_all_to_all_blocks(context.exec, transfer.sent, send, transfer.arrived, arrival));
}

/// All ranks of etp get all that arrived here.
void AllToAllDispatch::gather(const Context& context, const DispatchRound& leg,
                              Transfer& transfer) const {
  const Transport& etp = *ranks_.etp;
  if (transfer.request) transfer.request->wait(context.exec);
  transfer.request.reset();
  if (etp.size() == 1) return;
  const RowBlocks send(static_cast<std::size_t>(etp.size()),
                       packed(leg.local[static_cast<std::size_t>(etp.rank())]));
  transfer.request.emplace(etp.start_all_to_all_blocks(context.exec, transfer.arrived, send,
                                                       transfer.gathered, leg.local));
}

void AllToAllDispatch::bring(const Context& context, std::size_t round, const AnyIn& x,
                             const AnyView& rows) const {
  const ArenaScope scope(context.scratch);
  const DispatchRound& leg = legs_[round];
  Transfer transfer = make_transfer(context, leg, x, rows);
  ops::RowTarget own;
  if (leg.own_stays) own = {leg.first_arrived, transfer.arrived, {}};
  ops::permute_rows(context.exec, x, home_.token_offsets, home_.places, leg.first_sent,
                    transfer.sent, {}, own);
  start_bringing(context, leg, leg.arrival, transfer);
  gather(context, leg, transfer);
  if (transfer.request) transfer.request->wait(context.exec);
}

void AllToAllDispatch::bring(const Context& context, std::size_t round, const AnyIn& x,
                             const AnyView& rows, const AnyIn& weights,
                             const AnyView& row_weights) const {
  const ArenaScope scope(context.scratch);
  const DispatchRound& leg = legs_[round];
  Transfer of_rows = make_transfer(context, leg, x, rows);
  Transfer of_weights = make_transfer(context, leg, weights, row_weights);
  ops::RowTarget own;
  if (leg.own_stays) own = {leg.first_arrived, of_rows.arrived, of_weights.arrived};
  ops::permute_rows(context.exec, x, home_.token_offsets, home_.places, leg.first_sent,
                    of_rows.sent, {weights, of_weights.sent}, own);
  start_bringing(context, leg, leg.arrival, of_rows);
  start_bringing(context, leg,
                 fault("dispatch.weights_unsorted") ? in_order_of_ranks(leg.arrival) : leg.arrival,
                 of_weights);
  gather(context, leg, of_rows);
  gather(context, leg, of_weights);
  for (Transfer* transfer : {&of_rows, &of_weights}) {
    if (transfer->request) transfer->request->wait(context.exec);
  }
}

AnyView AllToAllDispatch::returned_rows(const Context& context, const AnyView& y) const {
  return scratch_like(context, y, home_.rows);
}

AnyView AllToAllDispatch::returned_values(const Context& context, DType type) const {
  return context.scratch.make(type, home_.rows);
}

AnyView AllToAllDispatch::workplace(const Context& context, std::size_t round,
                                    const AnyView& returned) const {
  const DispatchRound& leg = legs_[round];
  return leg.own_stays && ranks_.etp->size() == 1 ? returned.slice(leg.first_arrived, leg.arrived)
                                                  : scratch_like(context, returned, leg.received);
}

void AllToAllDispatch::sum_over_etp(const Context& context, const DispatchRound& leg,
                                    const AnyIn& partial, const AnyView& y) const {
  const bool lost =
      partial.rank() == 1 ? fault("etp.weight_gradients") : fault("etp.partial_outputs");
  if (lost) {
    std::int64_t row = 0;
    for (const RowBlock& block : leg.local[static_cast<std::size_t>(ranks_.etp->rank())]) {
      ops::cast(context.exec, partial.slice(block.first, block.rows), y.slice(row, block.rows));
      row += block.rows;
    }
    return;
  }
  reduce_scatter_in_order(context.exec, context.scratch, *ranks_.etp, as_matrix(partial), leg.local,
                          as_matrix(y));
}

std::optional<Request> AllToAllDispatch::start_giving_back(const Context& context,
                                                           const DispatchRound& leg,
                                                           const AnyIn& rows,
                                                           const AnyView& returned) const {
  AnyView own;
  if (leg.own_stays) own = returned.slice(leg.first_arrived, leg.arrived);
  AnyIn send = rows;
  if (ranks_.etp->size() > 1) {
    const AnyView sum = leg.own_stays ? own : scratch_like(context, rows, leg.arrived);
    sum_over_etp(context, leg, rows, sum);
    send = sum;
  } else {
    require(!leg.own_stays || rows.data() == own.data(),
            "give_back: the rows are not in their workplace");
  }
  const Transport& ep = *ranks_.ep;
  if (ep.size() == 1) return std::nullopt;
  return ep.start_all_to_all_blocks(context.exec, send,
                                    leg.own_stays ? without(leg.arrival, ep.rank()) : leg.arrival,
                                    returned, leg.home);
}

void AllToAllDispatch::give_back(const Context& context, std::size_t round, const AnyIn& rows,
                                 const AnyView& returned) const {
  const ArenaScope scope(context.scratch);
  auto request = start_giving_back(context, legs_[round], rows, returned);
  if (request) request->wait(context.exec);
}

void AllToAllDispatch::give_back(const Context& context, std::size_t round, const AnyIn& rows,
                                 const AnyView& returned, const AnyIn& values,
                                 const AnyView& returned_values) const {
  const ArenaScope scope(context.scratch);
  auto of_rows = start_giving_back(context, legs_[round], rows, returned);
  auto of_values = start_giving_back(context, legs_[round], values, returned_values);
  if (of_rows) of_rows->wait(context.exec);
  if (of_values) of_values->wait(context.exec);
}

/// In ascending order of expert.
void AllToAllDispatch::combine(const Context& context, const AnyIn& returned, const AnyIn& residual,
                               const AnyView& y) const {
  ops::combine_rows(context.exec, returned, home_.token_offsets, home_.places, residual, y);
}

AnyView AllToAllDispatch::combine_with_values(const Context& context, const AnyIn& returned,
                                              const AnyView& returned_values,
                                              const AnyView& y) const {
  const AnyView values = scratch_like(context, returned_values, home_.places.assignments());
  ops::combine_rows(context.exec, returned, home_.token_offsets, home_.places,
                    /*residual=*/{}, y, {returned_values, values});
  return values;
}

}  // namespace konclave
