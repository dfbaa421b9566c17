#include "moe/dispatcher.hpp"

#include "base/fault.hpp"
#include "ops/embedding.hpp"
#include "ops/permute.hpp"
#include "ops/rows.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <span>
#include <utility>

namespace konclave {

namespace {

/// y[i] = x[source[i]], for rows and for single values.
void pick(const ExecSpace& exec, const AnyIn& x, const View1<const int>& source, const AnyView& y) {
  if (x.rank() == 1) {
    ops::gather_values(exec, x, source, y);
  } else {
    ops::gather_rows(exec, x, source, y);
  }
}

/// (rows,H) or (rows), as `like` is.
AnyView scratch_like(const Context& context, const AnyIn& like, std::int64_t rows) {
  return like.rank() == 1 ? context.scratch.make(like.type(), rows)
                          : context.scratch.make(like.type(), rows, like.extent(1));
}

bool keep_their_places(const std::vector<DispatchChunk>& chunks) {
  return std::all_of(chunks.begin(), chunks.end(),
                     [](const DispatchChunk& chunk) { return chunk.from == chunk.to; });
}

/// The order that chunks bring about, both ways: from_of(row after) = row before, and to_of the
/// inverse.
struct Order {
  View1<int> from_of, to_of;
};

Order make_order(const Context& context, const std::vector<DispatchChunk>& chunks,
                 std::int64_t rows) {
  std::vector<int> host;
  for (const DispatchChunk& chunk : chunks) {
    for (const std::int64_t value : {chunk.from, chunk.to, chunk.rows}) {
      host.push_back(static_cast<int>(value));
    }
  }
  Order order{context.activations.make1<int>(rows), context.activations.make1<int>(rows)};
  const View1<const int> table = upload(context.exec, context.activations, host);
  Kokkos::parallel_for(
      "konclave::moe::make_order",
      ops::row_policy(context.exec, static_cast<std::int64_t>(chunks.size())),
      KOKKOS_LAMBDA(const ops::RowMember& team) {
        const int chunk = 3 * team.league_rank();
        const int from = table(chunk), to = table(chunk + 1);
        ops::row_for(team, table(chunk + 2), [&](const std::int64_t i) {
          order.from_of(to + i) = from + static_cast<int>(i);
          order.to_of(from + i) = to + static_cast<int>(i);
        });
      });
  return order;
}

/// y[i] = x[source[i]] of whole numbers.
View1<const int> compose(const Context& context, const View1<const int>& x,
                         const View1<const int>& source) {
  const auto y = context.activations.make1<int>(static_cast<std::int64_t>(source.size()));
  Kokkos::parallel_for(
      "konclave::moe::compose", Range(context.exec, 0, static_cast<std::int64_t>(source.size())),
      KOKKOS_LAMBDA(const std::int64_t i) { y(i) = x(source(i)); });
  return y;
}

DispatchPlan::Round make_round(const Context& context, DispatchRound counts) {
  DispatchPlan::Round round;
  round.expert_offsets =
      upload(context.exec, context.activations,
             std::vector<int>(counts.expert_offsets.begin(), counts.expert_offsets.end()));
  if (!keep_their_places(counts.to_local)) {
    const Order order = make_order(context, counts.to_local, counts.received);
    round.arrival_of = order.from_of;
    round.local_of = order.to_of;
  }
  round.counts = std::move(counts);
  return round;
}

/// One rank and one round: all rows are where they belong, and the host need not know how many each
/// expert has.
DispatchPlan in_place(const RoutingPlan& routing) {
  DispatchPlan::Round round;
  round.counts.sent = round.counts.received = routing.assignments();
  round.counts.send_rows = round.counts.receive_rows = {routing.assignments()};
  round.expert_offsets = routing.expert_offsets;
  return {{round}, routing.token_offsets, routing.row_of, routing.token_of, routing.assignment_of};
}

}  // namespace

Dispatcher::Dispatcher(std::shared_ptr<const Transport> ep, int num_experts,
                       std::int64_t receive_budget)
    : ep_(std::move(ep)), num_experts_(num_experts), receive_budget_(receive_budget) {
  require(num_experts % ep_->size() == 0, std::to_string(num_experts) +
                                              " experts cannot be spread evenly over " +
                                              std::to_string(ep_->size()) + " ranks");
}

DispatchCounts Dispatcher::exchange_counts(const Context& context,
                                           const RoutingPlan& routing) const {
  const std::vector<int> offsets = to_host(context.exec, routing.expert_offsets);
  std::vector<std::int64_t> mine;
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e) mine.push_back(offsets[e + 1] - offsets[e]);
  const std::vector<std::byte> bytes = ep_->gather(std::as_bytes(std::span(mine)));
  DispatchCounts counts{ep_->size(), num_experts_, {}};
  counts.counts.resize(bytes.size() / sizeof(std::int64_t));
  if (!bytes.empty()) std::memcpy(counts.counts.data(), bytes.data(), bytes.size());
  return counts;
}

DispatchPlan Dispatcher::plan(const Context& context, const RoutingPlan& routing) const {
  if (ranks() == 1 && receive_budget_ == 0) return in_place(routing);
  DispatchRounds host = plan_dispatch(exchange_counts(context, routing), rank(), receive_budget_);
  require(host.largest <= std::numeric_limits<int>::max(),
          "the experts of one rank receive " + std::to_string(host.largest) +
              " rows at once; set moe.receive_budget",
          ExitCode::memory);
  const ArenaScope scope(context.scratch);
  DispatchPlan plan;
  plan.token_offsets = routing.token_offsets;
  plan.row_of = routing.row_of;
  plan.token_of = routing.token_of;
  plan.assignment_of = routing.assignment_of;
  if (!keep_their_places(host.to_send)) {
    const Order order = make_order(context, host.to_send, routing.assignments());
    plan.row_of = compose(context, order.to_of, routing.row_of);
    plan.token_of = compose(context, routing.token_of, order.from_of);
    plan.assignment_of = compose(context, routing.assignment_of, order.from_of);
  }
  for (DispatchRound& round : host.rounds) {
    plan.rounds.push_back(make_round(context, std::move(round)));
  }
  return plan;
}

AnyView Dispatcher::workplace(const Context& context, const DispatchPlan::Round& round,
                              const AnyView& sent) const {
  return ranks() == 1 ? sent.slice(round.counts.first_sent, round.counts.sent)
                      : scratch_like(context, sent, round.counts.received);
}

Dispatcher::Transfer Dispatcher::start_dispatch(const Context& context, const DispatchRound& counts,
                                                const View1<const int>& arrival_of, const AnyIn& x,
                                                const View1<const int>& source,
                                                const AnyView& rows) const {
  const auto chosen =
      Kokkos::subview(source, std::make_pair(counts.first_sent, counts.first_sent + counts.sent));
  if (ranks() == 1) {
    pick(context.exec, x, chosen, rows);
    return {rows, std::nullopt};
  }
  const AnyView send = scratch_like(context, x, counts.sent);
  pick(context.exec, x, chosen, send);
  const bool in_order = arrival_of.size() == 0;
  const AnyView arrived = in_order ? rows : scratch_like(context, x, counts.received);
  return {arrived, ep_->start_all_to_all(context.exec, send, counts.send_rows, arrived,
                                         counts.receive_rows)};
}

void Dispatcher::finish_dispatch(const Context& context, const View1<const int>& arrival_of,
                                 Transfer& transfer, const AnyView& rows) const {
  if (!transfer.request) return;
  transfer.request->wait(context.exec);
  if (transfer.arrived.data() != rows.data()) {
    pick(context.exec, transfer.arrived, arrival_of, rows);
  }
}

void Dispatcher::dispatch(const Context& context, const DispatchPlan& plan,
                          const DispatchPlan::Round& round, const AnyIn& x,
                          const AnyView& rows) const {
  const ArenaScope scope(context.scratch);
  Transfer transfer =
      start_dispatch(context, round.counts, round.arrival_of, x, plan.token_of, rows);
  finish_dispatch(context, round.arrival_of, transfer, rows);
}

void Dispatcher::dispatch(const Context& context, const DispatchPlan& plan,
                          const DispatchPlan::Round& round, const AnyIn& x, const AnyView& rows,
                          const AnyIn& weights, const AnyView& row_weights) const {
  const ArenaScope scope(context.scratch);
  Transfer of_rows =
      start_dispatch(context, round.counts, round.arrival_of, x, plan.token_of, rows);
  const View1<const int> order =
      fault("dispatch.weights_unsorted") ? View1<const int>() : round.arrival_of;
  Transfer of_weights =
      start_dispatch(context, round.counts, order, weights, plan.assignment_of, row_weights);
  finish_dispatch(context, round.arrival_of, of_rows, rows);
  finish_dispatch(context, round.arrival_of, of_weights, row_weights);
}

Dispatcher::Transfer Dispatcher::start_giving_back(const Context& context,
                                                   const DispatchPlan::Round& round,
                                                   const AnyIn& rows, const AnyView& sent) const {
  const DispatchRound& counts = round.counts;
  const AnyView part = sent.slice(counts.first_sent, counts.sent);
  if (ranks() == 1) {
    require(rows.data() == part.data(), "give_back: the rows are not in their workplace");
    return {part, std::nullopt};
  }
  AnyIn send = rows;
  if (round.local_of.size() > 0) {
    const AnyView ordered = scratch_like(context, rows, counts.received);
    pick(context.exec, rows, round.local_of, ordered);
    send = ordered;
  }
  return {part,
          ep_->start_all_to_all(context.exec, send, counts.receive_rows, part, counts.send_rows)};
}

void Dispatcher::give_back(const Context& context, const DispatchPlan::Round& round,
                           const AnyIn& rows, const AnyView& sent) const {
  const ArenaScope scope(context.scratch);
  Transfer transfer = start_giving_back(context, round, rows, sent);
  if (transfer.request) transfer.request->wait(context.exec);
}

void Dispatcher::give_back(const Context& context, const DispatchPlan::Round& round,
                           const AnyIn& rows, const AnyView& sent, const AnyIn& values,
                           const AnyView& sent_values) const {
  const ArenaScope scope(context.scratch);
  Transfer of_rows = start_giving_back(context, round, rows, sent);
  Transfer of_values = start_giving_back(context, round, values, sent_values);
  if (of_rows.request) of_rows.request->wait(context.exec);
  if (of_values.request) of_values.request->wait(context.exec);
}

void Dispatcher::combine(const Context& context, const DispatchPlan& plan, const AnyIn& sent,
                         const AnyView& y) const {
  ops::combine_rows(context.exec, sent, plan.token_offsets, plan.row_of, y);
}

void Dispatcher::values_of_assignments(const Context& context, const DispatchPlan& plan,
                                       const AnyIn& sent, const AnyView& values) const {
  ops::gather_values(context.exec, sent, plan.row_of, values);
}

}  // namespace konclave
