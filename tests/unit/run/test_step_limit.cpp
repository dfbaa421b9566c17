#include "run/step_limit.hpp"
#include "train/config.hpp"

#include <gtest/gtest.h>

namespace konclave {
namespace {

TEST(StepLimit, IsWhatTheDeckSays) {
  StepLimit limit(90);
  limit.add(1000);
  EXPECT_TRUE(limit.watches());
  EXPECT_EQ(limit.of_step(), 90);
  EXPECT_EQ(limit.of_checkpoint(), 3600);
  EXPECT_EQ(StepLimit(1000).of_checkpoint(), 10000);
}

TEST(StepLimit, ZeroIsForEver) {
  const StepLimit limit(0);
  EXPECT_FALSE(limit.watches());
  EXPECT_EQ(limit.of_step(), 0);
  EXPECT_EQ(limit.of_checkpoint(), 0);
}

TEST(StepLimit, GoesByTheStepsSoFar) {
  StepLimit limit(FaultConfig().step_timeout);
  EXPECT_TRUE(limit.watches());
  EXPECT_EQ(limit.of_step(), 0) << "the first step may take its time";
  limit.add(2);
  EXPECT_EQ(limit.of_step(), 600) << "at least 10 minutes";
  for (int step = 0; step < 3; ++step) limit.add(50);
  limit.add(5000);
  EXPECT_EQ(limit.of_step(), 1000) << "20 times the median, whatever one step took";
  EXPECT_EQ(limit.of_checkpoint(), 10000);
  for (int step = 0; step < 15; ++step) limit.add(100);
  EXPECT_EQ(limit.of_step(), 2000) << "the last steps only";
}

}  // namespace
}  // namespace konclave
