#include "parallel/groups.hpp"

#include "base/fault.hpp"
#include "base/version.hpp"
#include "comm/checked_transport.hpp"
#include "comm/mpi_transport.hpp"
#include "comm/observed_transport.hpp"
#include "comm/solo_transport.hpp"

#include <string>
#include <utility>
#include <vector>

namespace konclave {

namespace {

/// The group of this rank along some axes of a grid. A group of one needs no communicator, and all
/// groups along the same axes have the same size.
Groups::Group make_group(const Communicator& world, const std::shared_ptr<CommunicationLog>& log,
                         const Grid& grid, const std::vector<std::string>& along,
                         const std::string& name) {
  int size = 1;
  for (const std::string& axis : along) size *= grid.size(axis);
  if (size == 1) return std::make_shared<SoloTransport>(name);
  Groups::Group group;
  auto plain = std::make_shared<MpiTransport>(
      Communicator::split(world.handle(), grid.color(world.rank(), along), name));
  if (checks_collectives() || fault("collectives.checked")) {
    group = std::make_shared<CheckedTransport>(std::move(plain));
  } else {
    group = std::move(plain);
  }
  if (log == nullptr) return group;
  return std::make_shared<ObservedTransport>(std::move(group), log,
                                             grid.members(world.rank(), along));
}

Groups::Group solo(const char* name) { return std::make_shared<SoloTransport>(name); }

}  // namespace

Groups Groups::alone() {
  Groups groups;
  groups.world = solo("world");
  groups.tp = solo("tp");
  groups.cp = solo("cp");
  groups.dp = solo("dp");
  groups.pp = solo("pp");
  groups.tp_cp = solo("tp_cp");
  groups.dp_cp = solo("dp_cp");
  groups.tp_dp_cp = solo("tp_dp_cp");
  groups.etp = solo("etp");
  groups.ep = solo("ep");
  groups.etp_ep = solo("etp_ep");
  groups.expert_dp = solo("edp");
  return groups;
}

Groups Groups::create(const Communicator& world, const RankGrids& grids,
                      const ParallelConfig& parallel,
                      const std::shared_ptr<CommunicationLog>& log) {
  const auto of_dense = [&](const std::vector<std::string>& along, const std::string& name) {
    return make_group(world, log, grids.dense, along, name);
  };
  const auto of_experts = [&](const std::vector<std::string>& along, const std::string& name) {
    return make_group(world, log, grids.experts, along, name);
  };
  Groups groups;
  groups.world = of_dense({"tp", "cp", "dp", "pp"}, "world");
  groups.tp = of_dense({"tp"}, "tp");
  groups.cp = of_dense({"cp"}, "cp");
  groups.dp = of_dense({"dp"}, "dp");
  groups.pp = of_dense({"pp"}, "pp");
  groups.tp_cp = of_dense({"tp", "cp"}, "tp_cp");
  groups.dp_cp = of_dense({"dp", "cp"}, "dp_cp");
  groups.tp_dp_cp = of_dense({"tp", "dp", "cp"}, "tp_dp_cp");
  groups.etp = of_experts({"etp"}, "etp");
  groups.ep = of_experts({"ep"}, "ep");
  groups.etp_ep = of_experts({"etp", "ep"}, "etp_ep");
  groups.expert_dp = of_experts({"edp"}, "edp");
  groups.parallel = parallel;
  return groups;
}

}  // namespace konclave
