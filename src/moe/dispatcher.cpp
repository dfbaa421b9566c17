#include "moe/dispatcher.hpp"

#include "moe/all_gather_dispatcher.hpp"
#include "moe/all_to_all_dispatcher.hpp"
#include "moe/row_order.hpp"

#include <string>

namespace konclave {

std::vector<AnyView> Dispatch::by_turns(const Context& context, const AnyIn& like,
                                        std::size_t turns) const {
  std::vector<std::int64_t> rows;
  for (const Round& round : rounds_) rows.push_back(round.rows);
  return scratch_by_turns(context, like, rows, turns);
}

std::vector<AnyView> Dispatch::parts(const AnyView& all) const {
  std::vector<AnyView> views;
  std::int64_t first = 0;
  for (const Round& round : rounds_) {
    views.push_back(all.slice(first, round.rows));
    first += round.rows;
  }
  return views;
}

std::shared_ptr<const Dispatcher> make_dispatcher(const MoeConfig& config, const Groups& groups) {
  require(config.num_experts % groups.ep->size() == 0,
          std::to_string(config.num_experts) + " experts cannot be spread evenly over " +
              std::to_string(groups.ep->size()) + " ranks");
  const bool gathers = config.dispatcher == "allgather";
  require(gathers || config.dispatcher == "alltoall",
          "there is no dispatcher \"" + config.dispatcher + "\"");
  require(!gathers || config.receive_budget == 0,
          "moe.receive_budget does not go with the dispatcher \"allgather\"");
  if (gathers && groups.etp_ep->size() > 1) {
    return std::make_shared<AllGatherDispatcher>(config, groups);
  }
  return std::make_shared<AllToAllDispatcher>(config, groups);
}

}  // namespace konclave
