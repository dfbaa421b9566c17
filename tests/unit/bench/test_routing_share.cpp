#include "bench/routing_share.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace konclave {
namespace {

using ::testing::HasSubstr;

TEST(RoutingShare, IsWhatBringsTokensToExpertsAndBack) {
  const std::vector<Phase> phases = {
      {"forward: attention", 100},   {"forward: MoE: router", 1},   {"forward: MoE: plan", 2},
      {"forward: MoE: permute", 3},  {"forward: MoE: experts", 60}, {"forward: MoE: combine", 4},
      {"forward: MoE: rest", 1000},  {"backward: MoE: permute", 5}, {"backward: MoE: experts", 117},
      {"backward: MoE: combine", 6}, {"backward: MoE: router", 2},  {"other", 50}};
  const RoutingShare share = routing_share(phases);
  EXPECT_DOUBLE_EQ(share.routing, 1 + 2 + 3 + 4 + 5 + 6 + 2);
  EXPECT_DOUBLE_EQ(share.experts, 177);
  EXPECT_DOUBLE_EQ(share.share(), 23.0 / 200);
  EXPECT_EQ(routing_share({{"forward: MLP", 3}}).share(), 0);

  BenchReport report;
  describe_routing_share(phases, report);
  EXPECT_THAT(report.text.back(), HasSubstr("11.50% of both"));
  EXPECT_DOUBLE_EQ(report.more.at("routing_share"), 0.115);
  EXPECT_EQ(report.more.at("phases").size(), phases.size());
}

TEST(MedianPhases, AreOfEachPart) {
  const std::vector<Phase> median =
      median_phases({{{"a", 3}, {"b", 10}}, {{"a", 1}, {"b", 30}}, {{"a", 2}, {"b", 20}}});
  ASSERT_EQ(median.size(), 2U);
  EXPECT_EQ(median[0].name, "a");
  EXPECT_DOUBLE_EQ(median[0].seconds, 2);
  EXPECT_DOUBLE_EQ(median[1].seconds, 20);
  EXPECT_TRUE(median_phases({}).empty());
}

}  // namespace
}  // namespace konclave
