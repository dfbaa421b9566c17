#include "moe/all_to_all_dispatch.hpp"

#include "moe/all_to_all_way_back.hpp"
#include "moe/all_to_all_way_there.hpp"
#include "moe/row_order.hpp"
#include "ops/permute.hpp"

#include <utility>

namespace konclave {

std::unique_ptr<WayThere> AllToAllDispatch::way_there(const Context& context,
                                                      std::vector<Brought> brought) const {
  return std::make_unique<AllToAllWayThere>(context, route_, std::move(brought));
}

AnyView AllToAllDispatch::returned_rows(const Context& context, const AnyView& y) const {
  return scratch_like(context, y, route_.home.rows);
}

AnyView AllToAllDispatch::returned_values(const Context& context, DType type) const {
  return context.scratch.make(type, route_.home.rows);
}

std::vector<AnyView> AllToAllDispatch::workplaces(const Context& context, const AnyView& returned,
                                                  std::size_t turns) const {
  if (!route_.legs.front().own_stays || route_.ranks.etp->size() > 1) {
    return by_turns(context, returned, turns);
  }
  std::vector<AnyView> places;
  for (const DispatchRound& leg : route_.legs) {
    places.push_back(returned.slice(leg.first_arrived, leg.arrived));
  }
  return places;
}

/// With overlap a round leaves its workplace while the next one is worked on, and the one after
/// that may arrive in its own.
std::unique_ptr<WayBack> AllToAllDispatch::way_back(const Context& context,
                                                    std::vector<AnyView> returned) const {
  const std::size_t turns = overlaps() ? 3 : 1;
  std::vector<std::vector<AnyView>> work;
  for (const AnyView& to : returned) work.push_back(workplaces(context, to, turns));
  return std::make_unique<AllToAllWayBack>(context, route_, std::move(returned), std::move(work));
}

/// In ascending order of expert.
void AllToAllDispatch::combine(const Context& context, const AnyIn& returned, const AnyIn& residual,
                               const AnyView& y) const {
  ops::combine_rows(context.exec, returned, route_.home.token_offsets, route_.home.places, residual,
                    y);
}

AnyView AllToAllDispatch::combine_with_values(const Context& context, const AnyIn& returned,
                                              const AnyView& returned_values,
                                              const AnyView& y) const {
  const AnyView values = scratch_like(context, returned_values, route_.home.places.assignments());
  ops::combine_rows(context.exec, returned, route_.home.token_offsets, route_.home.places,
                    /*residual=*/{}, y, {returned_values, values});
  return values;
}

}  // namespace konclave
