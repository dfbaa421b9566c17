#include "moe/all_gather_dispatch.hpp"

#include "moe/all_gather_ways.hpp"
#include "ops/elementwise.hpp"

#include <utility>

namespace konclave {

AllGatherDispatch::AllGatherDispatch(AllGatherRoute route)
    : Dispatch({{static_cast<std::int64_t>(route.local.row_of.size()), route.local.expert_offsets}},
               {/*kept=*/true, route.overlaps}),
      route_(std::move(route)) {}

std::unique_ptr<WayThere> AllGatherDispatch::way_there(const Context& context,
                                                       std::vector<Brought> brought) const {
  return std::make_unique<AllGatherWayThere>(context, route_, std::move(brought));
}

AnyView AllGatherDispatch::returned_rows(const Context&, const AnyView& y) const { return y; }

AnyView AllGatherDispatch::returned_values(const Context& context, DType type) const {
  const auto rank = static_cast<std::size_t>(route_.group->rank());
  return context.scratch.make(type, route_.sources.assignments[rank]);
}

std::unique_ptr<WayBack> AllGatherDispatch::way_back(const Context& context,
                                                     std::vector<AnyView> returned) const {
  std::vector<std::vector<AnyView>> work;
  for (const AnyView& to : returned) work.push_back(by_turns(context, to, 1));
  return std::make_unique<AllGatherWayBack>(route_, std::move(returned), std::move(work));
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
