#include "run/hardware.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace konclave {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

RankPlace bound_place(std::vector<int> cores, int threads, const std::string& host = "node1") {
  RankPlace place;
  place.host = host;
  place.cores = std::move(cores);
  place.numa = {place.cores.front() / 4};
  place.host_cores = 8;
  place.bound = true;
  place.threads = threads;
  return place;
}

RankPlace unbound_place(int cores, int threads, const std::string& host = "node1") {
  RankPlace place;
  place.host = host;
  for (int core = 0; core < cores; ++core) place.cores.push_back(core);
  place.numa = {0};
  place.host_cores = cores;
  place.threads = threads;
  return place;
}

/// `hosts` hosts with four ranks of two cores each.
std::vector<RankPlace> cluster(int hosts) {
  std::vector<RankPlace> places;
  for (int host = 0; host < hosts; ++host) {
    for (int rank = 0; rank < 4; ++rank) {
      places.push_back(bound_place({2 * rank, 2 * rank + 1}, 2, "node" + std::to_string(host + 1)));
    }
  }
  return places;
}

TEST(HardwareMap, IsATableOfFewRanks) {
  RankPlace unknown;
  unknown.host = "elsewhere";
  unknown.device = "Accelerator";
  EXPECT_THAT(
      hardware_map({bound_place({0, 1, 2, 5}, 4), unbound_place(2, 1, "laptop"), unknown}),
      ElementsAre("hardware: 3 ranks on 3 hosts",
                  "  rank  host       cores                  NUMA     threads  kernels",
                  "  0     node1      0-2,5 (of 8)           0        4        host threads",
                  "  1     laptop     0-1 (of 2, not bound)  0        1        host threads",
                  "  2     elsewhere  unknown                unknown  1        Accelerator"));
}

TEST(HardwareMap, IsATableOfHostsWhenRanksAreMany) {
  EXPECT_THAT(hardware_map(cluster(4)), SizeIs(2 + 16));
  std::vector<RankPlace> places = cluster(5);
  places[17].bound = false;
  places[18].threads = 1;
  EXPECT_THAT(hardware_map(places),
              ElementsAre("hardware: 20 ranks on 5 hosts",
                          "  host   ranks  cores                  NUMA  threads     kernels",
                          "  node1  0-3    0-7 (of 8)             0-1   2 a rank    host threads",
                          "  node2  4-7    0-7 (of 8)             0-1   2 a rank    host threads",
                          "  node3  8-11   0-7 (of 8)             0-1   2 a rank    host threads",
                          "  node4  12-15  0-7 (of 8)             0-1   2 a rank    host threads",
                          "  node5  16-19  0-7 (of 8, not bound)  0-1   1-2 a rank  host threads"));
}

TEST(HardwareMap, ShortensTheRanksOfAHostThatAreFarApart) {
  std::vector<RankPlace> places;
  for (int rank = 0; rank < 20; ++rank) {
    places.push_back(unbound_place(64, 1, rank % 2 == 0 ? "even" : "odd"));
  }
  EXPECT_THAT(hardware_map(places)[2], HasSubstr("even  0,2,4,...,18  0-63"));
}

TEST(HardwareMap, FoldsManyHostsThatLookAlike) {
  std::vector<RankPlace> places = cluster(4096);
  places.pop_back();
  EXPECT_THAT(
      hardware_map(places),
      ElementsAre("hardware: 16383 ranks on 4096 hosts",
                  "  host                 ranks     cores       NUMA  threads   kernels",
                  "  node1 and 4094 more  4 a host  0-7 (of 8)  0-1   2 a rank  host threads",
                  "  node4096             3 a host  0-5 (of 8)  0-1   2 a rank  host threads"));
}

TEST(HardwareMap, OfNoRanksIsEmpty) {
  EXPECT_THAT(hardware_map({}), IsEmpty());
  EXPECT_THAT(hardware_warnings({}), IsEmpty());
}

TEST(HardwareWarnings, AreQuietWhenEachThreadHasACore) {
  EXPECT_THAT(hardware_warnings({unbound_place(2, 1)}), IsEmpty());
  EXPECT_THAT(hardware_warnings({unbound_place(2, 1), unbound_place(2, 1)}), IsEmpty());
  EXPECT_THAT(hardware_warnings(cluster(3)), IsEmpty());
  // Bound to sockets: the ranks of one share its cores.
  EXPECT_THAT(hardware_warnings({bound_place({0, 1, 2, 3}, 2), bound_place({4, 5, 6, 7}, 2),
                                 bound_place({0, 1, 2, 3}, 2), bound_place({4, 5, 6, 7}, 2)}),
              IsEmpty());
  // The same numbers on another host are other cores.
  EXPECT_THAT(hardware_warnings({bound_place({0}, 1, "a"), bound_place({0}, 1, "b")}), IsEmpty());
  EXPECT_THAT(hardware_warnings({RankPlace{}, RankPlace{}}), IsEmpty());
}

TEST(HardwareWarnings, NameTwoRanksOnOneCore) {
  EXPECT_THAT(
      hardware_warnings({bound_place({0}, 1), bound_place({3}, 1), bound_place({3}, 1)}),
      ElementsAre("ranks 1 and 2 on node1 are bound to the same core (3); give each rank cores of "
                  "its own (mpirun --map-by slot:PE=1 --bind-to core)"));
}

TEST(HardwareWarnings, NameTheCoreAndNotTheWiderSetAroundIt) {
  const std::vector<RankPlace> places{bound_place({0, 1, 2, 3}, 4), bound_place({2}, 1),
                                      bound_place({2}, 1)};
  EXPECT_THAT(hardware_warnings(places),
              ElementsAre(AllOf(HasSubstr("ranks 1 and 2 on node1 are bound to the same core (2)"),
                                Not(HasSubstr("such cases")))));
}

TEST(HardwareWarnings, LookAtOverlappingSetsTogether) {
  // {0,1} and {3,4} meet in {1,2,3} alone.
  const std::vector<RankPlace> places{bound_place({0, 1}, 2), bound_place({3, 4}, 2),
                                      bound_place({1, 2, 3}, 3)};
  EXPECT_THAT(hardware_warnings(places),
              ElementsAre(HasSubstr("ranks 0-2 on node1 are bound to 5 cores together (0-4) and "
                                    "have work for 7; start fewer ranks on a host, or fewer "
                                    "threads (OMP_NUM_THREADS)")));
}

TEST(HardwareWarnings, CountTheCasesOfAKind) {
  std::vector<RankPlace> places;
  for (int rank = 0; rank < 6; ++rank) places.push_back(bound_place({rank / 2}, 1));
  EXPECT_THAT(hardware_warnings(places),
              ElementsAre(AllOf(HasSubstr("ranks 0 and 1 "), HasSubstr("first of 3 such cases"))));
}

TEST(HardwareWarnings, NameARankWithMoreThreadsThanItsCores) {
  EXPECT_THAT(
      hardware_warnings({bound_place({0, 1}, 2), bound_place({4}, 4)}),
      ElementsAre("rank 1 on node1 runs 4 threads and is bound to 1 core (4), where they take "
                  "turns; set OMP_NUM_THREADS=1, or give each rank more cores (mpirun --map-by "
                  "slot:PE=4 --bind-to core)"));
}

TEST(HardwareWarnings, CountThreadsOfUnboundRanks) {
  EXPECT_THAT(hardware_warnings({unbound_place(2, 4)}),
              ElementsAre("rank 0 on node1 runs 4 threads on 2 cores, where they take turns; set "
                          "OMP_NUM_THREADS=2"));
  EXPECT_THAT(hardware_warnings({unbound_place(4, 4), unbound_place(4, 1)}),
              ElementsAre(HasSubstr("2 ranks on node1 run 5 threads on 4 cores")));
  EXPECT_THAT(hardware_warnings({unbound_place(2, 1), unbound_place(2, 1), unbound_place(2, 1)}),
              ElementsAre(HasSubstr("3 threads on 2 cores, where they take turns; start at most 2 "
                                    "ranks on a host")));
}

}  // namespace
}  // namespace konclave
