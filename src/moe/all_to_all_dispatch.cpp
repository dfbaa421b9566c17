#include "moe/all_to_all_dispatch.hpp"

#include "base/fault.hpp"
#include "moe/row_order.hpp"
#include "ops/elementwise.hpp"
#include "ops/permute.hpp"
#include "parallel/collectives.hpp"

#include <numeric>
#include <utility>

namespace konclave {

AllToAllDispatch::AllToAllDispatch(Ranks ranks, std::vector<Round> rounds, Sending sending,
                                   std::vector<Leg> legs)
    : Dispatch(std::move(rounds)),
      ranks_(std::move(ranks)),
      sending_(std::move(sending)),
      legs_(std::move(legs)) {}

AllToAllDispatch::Transfer AllToAllDispatch::make_transfer(const Context& context,
                                                           const DispatchRound& counts,
                                                           const View1<const int>& arrival_of,
                                                           const AnyIn& x,
                                                           const AnyView& rows) const {
  const bool in_order = arrival_of.size() == 0;
  const AnyView gathered = in_order ? rows : scratch_like(context, x, counts.received);
  const AnyView arrived =
      ranks_.etp->size() == 1 ? gathered : scratch_like(context, x, counts.arrived);
  const AnyView sent = ranks_.ep->size() == 1 ? arrived : scratch_like(context, x, counts.sent);
  return {sent, arrived, gathered, std::nullopt};
}

void AllToAllDispatch::start_bringing(const Context& context, const DispatchRound& counts,
                                      Transfer& transfer) const {
  if (ranks_.ep->size() == 1) return;
  transfer.request.emplace(ranks_.ep->start_all_to_all(
      context.exec, transfer.sent, counts.send_rows, transfer.arrived, counts.receive_rows));
}

void AllToAllDispatch::gather(const Context& context, const DispatchRound& counts,
                              Transfer& transfer) const {
  if (ranks_.etp->size() == 1) return;
  if (transfer.request) transfer.request->wait(context.exec);
  transfer.request.emplace(ranks_.etp->start_all_gather_rows(
      context.exec, transfer.arrived, transfer.gathered, counts.gather_rows));
}

void AllToAllDispatch::finish_bringing(const Context& context, const View1<const int>& arrival_of,
                                       Transfer& transfer, const AnyView& rows) const {
  if (transfer.request) transfer.request->wait(context.exec);
  if (transfer.gathered.data() != rows.data()) {
    pick(context.exec, transfer.gathered, arrival_of, rows);
  }
}

void AllToAllDispatch::bring(const Context& context, std::size_t round, const AnyIn& x,
                             const AnyView& rows) const {
  const ArenaScope scope(context.scratch);
  const Leg& leg = legs_[round];
  Transfer transfer = make_transfer(context, leg.counts, leg.arrival_of, x, rows);
  ops::permute_rows(context.exec, x, sending_.token_offsets, sending_.row_of, leg.counts.first_sent,
                    transfer.sent);
  start_bringing(context, leg.counts, transfer);
  gather(context, leg.counts, transfer);
  finish_bringing(context, leg.arrival_of, transfer, rows);
}

void AllToAllDispatch::bring(const Context& context, std::size_t round, const AnyIn& x,
                             const AnyView& rows, const AnyIn& weights,
                             const AnyView& row_weights) const {
  const ArenaScope scope(context.scratch);
  const Leg& leg = legs_[round];
  const View1<const int> order =
      fault("dispatch.weights_unsorted") ? View1<const int>() : leg.arrival_of;
  Transfer of_rows = make_transfer(context, leg.counts, leg.arrival_of, x, rows);
  Transfer of_weights = make_transfer(context, leg.counts, order, weights, row_weights);
  ops::permute_rows(context.exec, x, sending_.token_offsets, sending_.row_of, leg.counts.first_sent,
                    of_rows.sent, {weights, of_weights.sent});
  start_bringing(context, leg.counts, of_rows);
  start_bringing(context, leg.counts, of_weights);
  gather(context, leg.counts, of_rows);
  gather(context, leg.counts, of_weights);
  finish_bringing(context, leg.arrival_of, of_rows, rows);
  finish_bringing(context, order, of_weights, row_weights);
}

AnyView AllToAllDispatch::returned_rows(const Context& context, const AnyView& y) const {
  return scratch_like(context, y, assignments());
}

AnyView AllToAllDispatch::returned_values(const Context& context, DType type) const {
  return context.scratch.make(type, assignments());
}

AnyView AllToAllDispatch::workplace(const Context& context, std::size_t round,
                                    const AnyView& returned) const {
  const DispatchRound& counts = legs_[round].counts;
  return alone() ? returned.slice(counts.first_sent, counts.sent)
                 : scratch_like(context, returned, counts.received);
}

void AllToAllDispatch::sum_over_etp(const Context& context, const DispatchRound& counts,
                                    const AnyIn& partial, const AnyView& y) const {
  const bool lost =
      partial.rank() == 1 ? fault("etp.weight_gradients") : fault("etp.partial_outputs");
  if (lost) {
    const auto own = counts.gather_rows.begin() + ranks_.etp->rank();
    const std::int64_t first = std::reduce(counts.gather_rows.begin(), own);
    ops::cast(context.exec, partial.slice(first, *own), y);
    return;
  }
  reduce_scatter_in_order(context.exec, context.scratch, *ranks_.etp, as_matrix(partial),
                          counts.gather_rows, as_matrix(y));
}

std::optional<Request> AllToAllDispatch::start_giving_back(const Context& context, const Leg& leg,
                                                           const AnyIn& rows,
                                                           const AnyView& returned) const {
  const DispatchRound& counts = leg.counts;
  const AnyView part = returned.slice(counts.first_sent, counts.sent);
  if (alone()) {
    require(rows.data() == part.data(), "give_back: the rows are not in their workplace");
    return std::nullopt;
  }
  AnyIn send = rows;
  if (leg.local_of.size() > 0) {
    const AnyView ordered = scratch_like(context, rows, counts.received);
    pick(context.exec, rows, leg.local_of, ordered);
    send = ordered;
  }
  const bool sends = ranks_.ep->size() > 1;
  if (ranks_.etp->size() > 1) {
    const AnyView sum = sends ? scratch_like(context, rows, counts.arrived) : part;
    sum_over_etp(context, counts, send, sum);
    send = sum;
  }
  if (!sends) return std::nullopt;
  return ranks_.ep->start_all_to_all(context.exec, send, counts.receive_rows, part,
                                     counts.send_rows);
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
  ops::combine_rows(context.exec, returned, sending_.token_offsets, sending_.row_of, residual, y);
}

AnyView AllToAllDispatch::combine_with_values(const Context& context, const AnyIn& returned,
                                              const AnyView& returned_values,
                                              const AnyView& y) const {
  const AnyView values = scratch_like(context, returned_values, assignments());
  ops::combine_rows(context.exec, returned, sending_.token_offsets, sending_.row_of,
                    /*residual=*/{}, y, {returned_values, values});
  return values;
}

}  // namespace konclave
