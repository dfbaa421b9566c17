#include "moe/all_gather_dispatch.hpp"

#include "base/fault.hpp"
#include "moe/row_order.hpp"
#include "ops/elementwise.hpp"
#include "ops/permute.hpp"
#include "parallel/collectives.hpp"

#include <numeric>
#include <utility>

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

}  // namespace

AllGatherDispatch::AllGatherDispatch(Groups::Group group, Sources sources,
                                     const LocalAssignments& local)
    : Dispatch({{static_cast<std::int64_t>(local.row_of.size()), local.expert_offsets}}),
      group_(std::move(group)),
      sources_(std::move(sources)),
      local_(local) {}

AnyView AllGatherDispatch::room_for_all(const Context& context, const AnyIn& x,
                                        const std::vector<std::int64_t>& counts) const {
  return scratch_like(context, x, std::reduce(counts.begin(), counts.end()));
}

void AllGatherDispatch::bring(const Context& context, std::size_t, const AnyIn& x,
                              const AnyView& rows) const {
  const ArenaScope scope(context.scratch);
  const AnyView all = room_for_all(context, x, sources_.tokens);
  group_->start_all_gather_rows(context.exec, x, all, sources_.tokens).wait(context.exec);
  ops::permute_rows(context.exec, all, local_.token_offsets, local_.row_of, 0, rows);
}

void AllGatherDispatch::bring(const Context& context, std::size_t, const AnyIn& x,
                              const AnyView& rows, const AnyIn& weights,
                              const AnyView& row_weights) const {
  const ArenaScope scope(context.scratch);
  const AnyView all = room_for_all(context, x, sources_.tokens);
  const AnyView all_weights = room_for_all(context, weights, sources_.assignments);
  Request of_rows = group_->start_all_gather_rows(context.exec, x, all, sources_.tokens);
  Request of_weights =
      group_->start_all_gather_rows(context.exec, weights, all_weights, sources_.assignments);
  of_rows.wait(context.exec);
  ops::permute_rows(context.exec, all, local_.token_offsets, local_.row_of, 0, rows);
  of_weights.wait(context.exec);
  ops::gather_values(context.exec, all_weights, local_.assignment_of, row_weights);
}

AnyView AllGatherDispatch::returned_rows(const Context&, const AnyView& y) const { return y; }

AnyView AllGatherDispatch::returned_values(const Context& context, DType type) const {
  return context.scratch.make(type, sources_.assignments[static_cast<std::size_t>(group_->rank())]);
}

AnyView AllGatherDispatch::workplace(const Context& context, std::size_t round,
                                     const AnyView& returned) const {
  return scratch_like(context, returned, rounds()[round].rows);
}

void AllGatherDispatch::give_back(const Context& context, std::size_t, const AnyIn& rows,
                                  const AnyView& returned) const {
  const ArenaScope scope(context.scratch);
  const AnyView partial = room_for_all(context, rows, sources_.tokens);
  ops::combine_rows(context.exec, rows, local_.token_offsets, local_.row_of, {}, partial);
  if (fault("allgather.lost_source")) {
    const std::int64_t last = sources_.tokens.back();
    ops::fill_zero(context.exec, partial.slice(partial.extent(0) - last, last));
  }
  reduce_scatter_in_order(context.exec, context.scratch, *group_, partial, sources_.tokens,
                          returned);
}

void AllGatherDispatch::give_back(const Context& context, std::size_t round, const AnyIn& rows,
                                  const AnyView& returned, const AnyIn& values,
                                  const AnyView& returned_values) const {
  give_back(context, round, rows, returned);
  const ArenaScope scope(context.scratch);
  const AnyView partial = room_for_all(context, values, sources_.assignments);
  dispatch_accum(values.type(), [&](auto tag) {
    using A = typename decltype(tag)::type;
    scatter_values<A>(context.exec, values.as1<A>(), local_.assignment_of, partial);
  });
  reduce_scatter_in_order(context.exec, context.scratch, *group_, as_matrix(partial),
                          sources_.assignments, as_matrix(returned_values));
}

void AllGatherDispatch::combine(const Context& context, const AnyIn& returned,
                                const AnyIn& residual, const AnyView& y) const {
  require(returned.data() == y.data(), "combine: the rows came back to another place");
  if (!residual.empty()) ops::add(context.exec, residual, y, y);
}

AnyView AllGatherDispatch::combine_with_values(const Context& context, const AnyIn& returned,
                                               const AnyView& returned_values,
                                               const AnyView& y) const {
  combine(context, returned, /*residual=*/{}, y);
  return returned_values;
}

}  // namespace konclave
