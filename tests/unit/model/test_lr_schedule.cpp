#include "tests/support/expect_error.hpp"
#include "train/lr_schedule.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <utility>

namespace konclave {
namespace {

/// lr falls from 1 to 0.1; steps 1 .. 110 with a warm-up of 10.
struct Case {
  const char* schedule;
  int decay_steps, step;
  double expected;
};

TEST(LearningRate, IsRightByHand) {
  const double eighth = 0.1 + 0.45 * (1 + std::cos(std::numbers::pi / 4));
  const Case cases[] = {
      {"constant", 0, 11, 1},
      {"constant", 0, 60, 1},
      {"constant", 0, 110, 1},
      {"constant", 0, 999, 1},
      {"linear", 0, 35, 0.775},
      {"linear", 0, 60, 0.55},
      {"linear", 0, 110, 0.1},
      {"linear", 0, 111, 0.1},
      {"linear", 50, 35, 0.55},
      {"linear", 50, 60, 0.1},
      {"linear", 50, 110, 0.1},
      {"linear", 200, 110, 0.55},
      {"cosine", 0, 35, eighth},
      {"cosine", 0, 60, 0.55},
      {"cosine", 0, 110, 0.1},
      {"cosine", 0, 999, 0.1},
      {"cosine", 40, 20, eighth},
      {"cosine", 40, 30, 0.55},
      {"cosine", 40, 50, 0.1},
      {"cosine", 40, 51, 0.1},
      {"wsd", 0, 11, 1},
      {"wsd", 0, 99, 1},
      {"wsd", 0, 104, 1 - 4.5 / 11},
      {"wsd", 0, 110, 0.1},
      {"wsd", 0, 999, 0.1},
      {"wsd", 50, 60, 1},
      {"wsd", 50, 85, 0.55},
      {"wsd", 50, 110, 0.1},
      {"wsd", 100, 60, 0.55},
  };
  for (const Case& each : cases) {
    OptimizerConfig config;
    config.lr = 1;
    config.min_lr = 0.1;
    config.warmup_steps = 10;
    config.schedule = each.schedule;
    config.decay_steps = each.decay_steps;
    EXPECT_NEAR(learning_rate(config, each.step, 110), each.expected, 1e-14)
        << each.schedule << ", decay_steps " << each.decay_steps << ", step " << each.step;
    for (const int step : {1, 5, 10}) {
      EXPECT_NEAR(learning_rate(config, step, 110), step / 10.0, 1e-15) << each.schedule;
    }
  }
}

TEST(LearningRate, StartsAtOnceWithoutWarmUp) {
  OptimizerConfig config;
  config.lr = 1;
  for (const auto& [schedule, first] :
       {std::pair("constant", 1.0), std::pair("linear", 0.75), std::pair("wsd", 1.0),
        std::pair("cosine", 0.5 * (1 + std::cos(std::numbers::pi / 4)))}) {
    config.schedule = schedule;
    EXPECT_NEAR(learning_rate(config, 1, 4), first, 1e-15) << schedule;
  }
}

TEST(LearningRate, RefusesAnUnknownSchedule) {
  OptimizerConfig config;
  config.schedule = "stairs";
  expect_error([&] { learning_rate(config, 1, 10); }, ExitCode::internal, {"stairs"});
}

}  // namespace
}  // namespace konclave
