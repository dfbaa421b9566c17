#include "moe/dispatcher.hpp"

#include "moe/all_gather_dispatcher.hpp"
#include "moe/all_to_all_dispatcher.hpp"

#include <string>

namespace konclave {

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
