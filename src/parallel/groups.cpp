#include "parallel/groups.hpp"

#include "comm/mpi_transport.hpp"
#include "comm/solo_transport.hpp"

#include <string>
#include <vector>

namespace konclave {

namespace {

/// The group of this rank along some axes of a grid. A group of one needs no communicator, and all
/// groups along the same axes have the same size.
std::shared_ptr<const Transport> make_group(const Communicator& world, const Grid& grid,
                                            const std::vector<std::string>& along,
                                            const std::string& name) {
  int size = 1;
  for (const std::string& axis : along) size *= grid.size(axis);
  if (size == 1) return std::make_shared<SoloTransport>(name);
  return std::make_shared<MpiTransport>(
      Communicator::split(world.handle(), grid.color(world.rank(), along), name));
}

}  // namespace

Groups Groups::alone() {
  return {std::make_shared<SoloTransport>("world"), std::make_shared<SoloTransport>("dp"),
          std::make_shared<SoloTransport>("ep"), std::make_shared<SoloTransport>("edp")};
}

Groups Groups::create(const Communicator& world, const RankGrids& grids) {
  if (world.size() == 1) return alone();
  return {std::make_shared<MpiTransport>(Communicator::duplicate(world.handle(), "world")),
          make_group(world, grids.dense, {"dp"}, "dp"),
          make_group(world, grids.experts, {"ep"}, "ep"),
          make_group(world, grids.experts, {"edp"}, "edp")};
}

}  // namespace konclave
