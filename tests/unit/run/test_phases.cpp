#include "base/error.hpp"
#include "run/phases.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace konclave {
namespace {

using ::testing::ElementsAre;
using ::testing::FieldsAre;

constexpr std::int64_t kSecond = 1'000'000'000;

TraceEvent event(const std::string& name, const std::string& category, std::int64_t begin,
                 std::int64_t end, const std::string& row = "compute") {
  return {name, category, row, begin * kSecond, end * kSecond, {}};
}

/// As a trace has them: what ends first comes first.
std::vector<TraceEvent> step_at(std::int64_t at) {
  return {event("layer 0 attention", "layer", at + 1, at + 3),
          event("layer 0 MoE", "layer", at + 3, at + 6),
          event("layer 1 attention", "layer", at + 6, at + 7),
          event("all_to_all", "communication", at + 4, at + 5, "ep"),
          event("forward", "pipeline", at + 1, at + 9),
          event("update weights", "optimizer", at + 10, at + 12),
          event("step 1", "step", at, at + 13)};
}

TEST(Phases, AddUpToTheStep) {
  EXPECT_THAT(phases_of(step_at(0), 1),
              ElementsAre(FieldsAre("forward: attention", 3), FieldsAre("forward: MoE", 3),
                          FieldsAre("forward: rest", 2), FieldsAre("update weights", 2),
                          FieldsAre("other", 3)));
}

TEST(Phases, AreTheMeanOfTheLastSteps) {
  std::vector<TraceEvent> events = {event("forward", "pipeline", 1, 100),
                                    event("step 0", "step", 0, 100)};
  for (const std::int64_t at : {100, 120}) {
    const std::vector<TraceEvent> step = step_at(at);
    events.insert(events.end(), step.begin(), step.end());
  }
  events.push_back(event("update weights", "optimizer", 140, 144));
  events.push_back(event("step 3", "step", 140, 144));
  double sum = 0;
  for (const Phase& phase : phases_of(events, 2)) sum += phase.seconds;
  EXPECT_DOUBLE_EQ(sum, (13.0 + 4.0) / 2);
  sum = 0;
  for (const Phase& phase : phases_of(events, 4)) sum += phase.seconds;
  EXPECT_DOUBLE_EQ(sum, (100 + 13 + 13 + 4.0) / 4);
  EXPECT_THROW(phases_of(events, 5), Error);
}

TEST(Phases, OfRanksAreTheirMean) {
  EXPECT_THAT(mean_phases({{{"a", 1}, {"b", 2}}, {{"b", 4}, {"c", 6}}}),
              ElementsAre(FieldsAre("a", 0.5), FieldsAre("b", 3), FieldsAre("c", 3)));
}

}  // namespace
}  // namespace konclave
