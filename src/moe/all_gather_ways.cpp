#include "moe/all_gather_ways.hpp"

#include "base/fault.hpp"
#include "moe/row_order.hpp"
#include "ops/elementwise.hpp"
#include "ops/permute.hpp"
#include "parallel/collectives.hpp"

#include <numeric>

namespace konclave {

namespace {

/// y[place[i]] = x[i], no place twice, and 0 elsewhere.
template <typename A>
void scatter_values(const ExecSpace& exec, View1<const A> x, View1<const int> place,
                    const AnyView& y) {
  ops::fill_zero(exec, y);
  const View1<A> values = y.as1<A>();
  Kokkos::parallel_for(
      "konclave::moe::scatter_values", Range(exec, 0, static_cast<std::int64_t>(place.size())),
      KOKKOS_LAMBDA(const std::int64_t i) { values(place(i)) = x(i); });
}

/// Memory for what all sources have of something like x.
AnyView room_for_all(const Context& context, const AnyIn& x,
                     const std::vector<std::int64_t>& counts) {
  return scratch_like(context, x, std::reduce(counts.begin(), counts.end()));
}

}  // namespace

AllGatherWayThere::AllGatherWayThere(const Context& context, const AllGatherRoute& route,
                                     std::vector<Dispatch::Brought> brought)
    : route_(route) {
  for (Dispatch::Brought& what : brought) {
    const auto& counts = lanes_.empty() ? route.sources.tokens : route.sources.assignments;
    lanes_.push_back({std::move(what), counts, {}, std::nullopt});
  }
  if (route.overlaps) take_memory(context);
}

void AllGatherWayThere::take_memory(const Context& context) {
  for (Lane& lane : lanes_) lane.all = room_for_all(context, lane.what.from, lane.counts);
}

void AllGatherWayThere::send(const Context& context) {
  for (Lane& lane : lanes_) {
    lane.request.emplace(
        route_.group->start_all_gather_rows(context.exec, lane.what.from, lane.all, lane.counts));
  }
}

void AllGatherWayThere::start(const Context& context) {
  if (route_.overlaps) send(context);
}

void AllGatherWayThere::arrive(const Context& context, std::size_t round) {
  const ArenaScope scope(context.scratch);
  if (!route_.overlaps) take_memory(context);
  if (!lanes_.front().request) send(context);
  const LocalAssignments& local = route_.local;
  for (Lane& lane : lanes_) {
    lane.request->wait(context.exec);
    lane.request.reset();
    if (&lane == &lanes_.front()) {
      ops::permute_rows(context.exec, lane.all, local.token_offsets, local.row_of, 0,
                        lane.what.to[round]);
    } else {
      ops::gather_values(context.exec, lane.all, local.assignment_of, lane.what.to[round]);
    }
  }
}

void AllGatherWayThere::poll() {
  for (Lane& lane : lanes_) {
    if (lane.request) lane.request->poll();
  }
}

void AllGatherWayBack::give(const Context& context, std::size_t round) {
  const LocalAssignments& local = route_.local;
  const AllGatherRoute::Sources& sources = route_.sources;
  {
    const ArenaScope scope(context.scratch);
    const AnyView partial = room_for_all(context, rows(round), sources.tokens);
    ops::combine_rows(context.exec, rows(round), local.token_offsets, local.row_of, {}, partial);
    if (fault("allgather.lost_source")) {
      const std::int64_t last = sources.tokens.back();
      ops::fill_zero(context.exec, partial.slice(partial.extent(0) - last, last));
    }
    reduce_scatter_in_order(context.exec, context.scratch, *route_.group, partial, sources.tokens,
                            returned_.front());
  }
  if (returned_.size() == 1) return;
  const ArenaScope scope(context.scratch);
  const AnyView partial = room_for_all(context, values(round), sources.assignments);
  dispatch_accum(partial.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    scatter_values<A>(context.exec, AnyIn(values(round)).as1<A>(), local.assignment_of, partial);
  });
  reduce_scatter_in_order(context.exec, context.scratch, *route_.group, as_matrix(partial),
                          sources.assignments, as_matrix(returned_.back()));
}

}  // namespace konclave
