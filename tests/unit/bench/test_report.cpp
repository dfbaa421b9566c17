#include "bench/cpu.hpp"
#include "bench/report.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace konclave {
namespace {

using ::testing::HasSubstr;

BenchReport sample() {
  BenchReport report;
  report.benchmark = "gemm";
  report.problem = "a product";
  report.limits = {2e9, "the best one", 1e9};
  report.lines = {{"forward", "somebody", {0.5, 0.4, 0.75, 7}, 1e8, 2e8, 0.1, "a limit"}};
  report.more["further"] = 3;
  return report;
}

TEST(Report, SaysTheShareOfTheLimit) {
  const std::vector<std::string> lines = describe(sample());
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(lines[0], "gemm: a product");
  EXPECT_THAT(lines[2], HasSubstr("forward  somebody"));
  EXPECT_THAT(lines[2], HasSubstr("500"));
  EXPECT_THAT(lines[2], HasSubstr("0.2"));
  EXPECT_THAT(lines[2], HasSubstr("20.0%"));
  EXPECT_THAT(lines[3], HasSubstr("2.0 GFLOP/s (the best one), 1.0 GB/s"));
}

TEST(Report, IsAnObjectForPrograms) {
  const nlohmann::json json = json_of(sample());
  EXPECT_EQ(json.at("benchmark"), "gemm");
  EXPECT_EQ(json.at("further"), 3);
  const nlohmann::json& line = json.at("lines").at(0);
  EXPECT_DOUBLE_EQ(line.at("ratio"), 0.2);
  EXPECT_DOUBLE_EQ(line.at("seconds"), 0.5);
  EXPECT_DOUBLE_EQ(line.at("flops_per_second"), 2e8);
  EXPECT_EQ(line.at("repetitions"), 7);
  EXPECT_FALSE(line.contains("moved_ratio")) << "nobody counted";
  BenchReport counted = sample();
  counted.lines.front().moved_bytes = 2.5e8;
  EXPECT_DOUBLE_EQ(json_of(counted).at("lines").at(0).at("moved_ratio"), 1.25);
  EXPECT_DOUBLE_EQ(json_of(counted).at("lines").at(0).at("moved_bytes"), 2.5e8);
}

TEST(Cpu, HasNoUnitThatItDoesNotHave) {
  EXPECT_FALSE(this_cpu().has("a unit of no processor"));
  for (const std::string& unit : this_cpu().product_units()) EXPECT_TRUE(this_cpu().has(unit));
}

}  // namespace
}  // namespace konclave
