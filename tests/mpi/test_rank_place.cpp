#include "run/rank_place.hpp"

#include <gtest/gtest.h>

#include <cstddef>

namespace konclave {
namespace {

TEST(RankPlace, RankZeroLearnsThePlacesOfAllInTheirOrder) {
  const Communicator world = Communicator::world();
  const std::vector<std::string> own =
      world.gather(nlohmann::json(this_place()).dump(), /*root=*/0);

  const std::vector<RankPlace> places = gather_places(world);

  ASSERT_EQ(places.size(), world.rank() == 0 ? static_cast<std::size_t>(world.size()) : 0);
  for (std::size_t rank = 0; rank < places.size(); ++rank) {
    EXPECT_EQ(nlohmann::json(places[rank]).dump(), own[rank]);
    for (std::size_t other = 0; other < rank; ++other) {
      EXPECT_NE(places[rank].pid, places[other].pid);
    }
  }
}

}  // namespace
}  // namespace konclave
