#include "run/rank_place.hpp"
#include "run/run_lock.hpp"
#include "tensor/kokkos.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <sched.h>
#include <string>
#include <unistd.h>
#include <vector>

namespace konclave {
namespace {

/// Binds all threads of this process to one of their processors for as long as it lives.
class OnOneProcessor {
 public:
  OnOneProcessor() {
    ::sched_getaffinity(0, sizeof before_, &before_);
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i) {
      if (CPU_ISSET(i, &before_)) CPU_SET(i, &one);
    }
    bind(one);
  }
  ~OnOneProcessor() { bind(before_); }
  OnOneProcessor(const OnOneProcessor&) = delete;
  OnOneProcessor& operator=(const OnOneProcessor&) = delete;

  int processors_before() const { return CPU_COUNT(&before_); }

 private:
  static void bind(const cpu_set_t& processors) {
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
      ::sched_setaffinity(std::stoi(entry.path().filename()), sizeof processors, &processors);
    }
  }

  cpu_set_t before_{};
};

/// Has hwloc see a made-up machine.
class MadeUpMachine {
 public:
  explicit MadeUpMachine(const char* description) { ::setenv("HWLOC_SYNTHETIC", description, 1); }
  ~MadeUpMachine() { ::unsetenv("HWLOC_SYNTHETIC"); }
  MadeUpMachine(const MadeUpMachine&) = delete;
  MadeUpMachine& operator=(const MadeUpMachine&) = delete;
};

TEST(RankPlace, IsThisProcess) {
  const RankPlace place = this_place();
  EXPECT_EQ(place.host, host_name());
  EXPECT_EQ(place.pid, ::getpid());
  EXPECT_EQ(place.threads, Kokkos::DefaultHostExecutionSpace().concurrency());
  EXPECT_FALSE(place.cores.empty());
  EXPECT_LE(static_cast<int>(place.cores.size()), place.host_cores);
}

TEST(RankPlace, SeesThatItIsBound) {
  const OnOneProcessor one;
  if (one.processors_before() == 1) GTEST_SKIP() << "this process has one processor";
  const RankPlace place = this_place();
  EXPECT_EQ(place.cores.size(), 1u);
  EXPECT_TRUE(place.bound);
}

TEST(RankPlace, NumbersTheCoresOfAllSocketsAndTheirNodes) {
  const MadeUpMachine machine("pack:2 [numa] core:3(indexes=5,4,3,2,1,0) pu:2");
  const RankPlace place = this_place();
  EXPECT_EQ(place.cores, (std::vector<int>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(place.numa, (std::vector<int>{0, 1}));
  EXPECT_EQ(place.host_cores, 6);
  EXPECT_FALSE(place.bound);
}

TEST(RankPlace, TakesProcessorsWhereNoCoresAreSeen) {
  const MadeUpMachine machine("numa:1 pu:3");
  const RankPlace place = this_place();
  EXPECT_EQ(place.cores, (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(place.host_cores, 3);
}

TEST(RankPlace, SurvivesTheWayToAnotherRank) {
  const RankPlace place{"node1", 42, {1, 2}, {0}, 8, true, 2, "Accelerator"};
  const auto copy = nlohmann::json::parse(nlohmann::json(place).dump()).get<RankPlace>();
  EXPECT_EQ(nlohmann::json(copy), nlohmann::json(place));
  EXPECT_EQ(copy.cores, place.cores);
  EXPECT_TRUE(copy.bound);
}

}  // namespace
}  // namespace konclave
