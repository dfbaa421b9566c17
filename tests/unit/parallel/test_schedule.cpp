#include "parallel/schedule.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <tuple>

namespace konclave {
namespace {

using Kind = PipelineWork::Kind;
using Schedule = std::vector<PipelineWork>;

std::string describe(const PipelineShape& shape) {
  return "pp " + std::to_string(shape.stages) + ", vpp " + std::to_string(shape.chunks) +
         ", group " + std::to_string(shape.group) + ", micro-batches " +
         std::to_string(shape.micro_batches);
}

/// "F0.1 B0.1": micro-batch 0, chunk 1.
std::string in_words(const Schedule& schedule) {
  std::string text;
  for (const PipelineWork& work : schedule) {
    text += text.empty() ? "" : " ";
    text += work.kind == Kind::forward ? "F" : "B";
    text += std::to_string(work.micro_batch) + "." + std::to_string(work.chunk);
  }
  return text;
}

std::vector<Schedule> all_stages(const PipelineShape& shape) {
  std::vector<Schedule> schedules;
  for (int stage = 0; stage < shape.stages; ++stage) {
    schedules.push_back(pipeline_schedule(shape, stage));
  }
  return schedules;
}

/// Each (micro-batch, chunk) once forward and later once backward, or what is wrong.
std::string completeness_fault(const PipelineShape& shape, const Schedule& schedule) {
  const std::size_t pairs = static_cast<std::size_t>(shape.micro_batches) * shape.chunks;
  std::vector<int> done(pairs, 0);  // 1 behind forward, 2 behind backward
  for (const PipelineWork& work : schedule) {
    const bool exists = 0 <= work.micro_batch && work.micro_batch < shape.micro_batches &&
                        0 <= work.chunk && work.chunk < shape.chunks;
    if (!exists) return in_words({work}) + " is no work of this shape";
    int& at = done[static_cast<std::size_t>(work.micro_batch) * shape.chunks + work.chunk];
    if (at != (work.kind == Kind::forward ? 0 : 1)) return in_words({work}) + " is out of turn";
    ++at;
  }
  return schedule.size() == 2 * pairs ? "" : "pieces are missing";
}

/// All stages at once, each doing its schedule in its order: it blocks until its input is there,
/// and sends without waiting. Messages of one kind between two stages arrive in the order of
/// sending.
class Pipeline {
 public:
  explicit Pipeline(const PipelineShape& shape)
      : shape_(shape),
        schedules_(all_stages(shape)),
        next_(static_cast<std::size_t>(shape.stages), 0) {}

  /// What went wrong, or "".
  std::string run() {
    for (bool moves = true; moves && fault_.empty();) {
      moves = false;
      for (int stage = 0; stage < shape_.stages; ++stage) moves = advance(stage) || moves;
    }
    if (!fault_.empty()) return fault_;
    for (int stage = 0; stage < shape_.stages; ++stage) {
      if (next_[stage] < schedules_[stage].size()) {
        return "stage " + std::to_string(stage) + " waits for ever at " +
               in_words({schedules_[stage][next_[stage]]});
      }
    }
    for (const auto& [route, messages] : routes_) {
      if (!messages.empty()) return "messages that nobody receives";
    }
    return "";
  }

 private:
  struct Message {
    int micro_batch, part;  ///< part: of the receiver
    bool operator==(const Message&) const = default;
  };
  using Route = std::tuple<int, int, Kind>;  ///< from, to

  int parts() const { return shape_.stages * shape_.chunks; }
  int part_of(int stage, const PipelineWork& work) const {
    return work.chunk * shape_.stages + stage;
  }

  /// Does what can be done; whether that was anything.
  bool advance(int stage) {
    bool moved = false;
    while (next_[stage] < schedules_[stage].size()) {
      const PipelineWork work = schedules_[stage][next_[stage]];
      if (!receive(stage, work)) break;
      send(stage, work);
      ++next_[stage];
      moved = true;
    }
    return moved;
  }

  bool receive(int stage, const PipelineWork& work) {
    const bool is_forward = work.kind == Kind::forward;
    const int part = part_of(stage, work);
    if (part == (is_forward ? 0 : parts() - 1)) return true;
    const int from = (part + (is_forward ? -1 : 1)) % shape_.stages;
    std::deque<Message>& messages = routes_[{from, stage, work.kind}];
    if (messages.empty()) return false;
    if (messages.front() != Message{work.micro_batch, part}) {
      fault_ = "stage " + std::to_string(stage) + " gets another message than it wants for " +
               in_words({work});
      return false;
    }
    messages.pop_front();
    return true;
  }

  void send(int stage, const PipelineWork& work) {
    const bool is_forward = work.kind == Kind::forward;
    const int to_part = part_of(stage, work) + (is_forward ? 1 : -1);
    if (to_part < 0 || to_part == parts()) return;
    routes_[{stage, to_part % shape_.stages, work.kind}].push_back({work.micro_batch, to_part});
  }

  PipelineShape shape_;
  std::vector<Schedule> schedules_;
  std::vector<std::size_t> next_;
  std::map<Route, std::deque<Message>> routes_;
  std::string fault_;
};

/// Legal shapes with up to 16 stages of up to 8 chunks.
std::vector<PipelineShape> legal_shapes() {
  std::vector<PipelineShape> shapes;
  for (int stages = 1; stages <= 16; ++stages) {
    for (int chunks = 1; chunks <= (stages == 1 ? 1 : 8); ++chunks) {
      for (const int group : {0, stages + 1, stages + 3, 2 * stages}) {
        if (chunks == 1 && group != 0) continue;
        for (int micro_batches = 1; micro_batches <= 3 * stages + 5; ++micro_batches) {
          const PipelineShape shape{stages, chunks, micro_batches, group};
          if (schedule_fault(shape).empty()) shapes.push_back(shape);
        }
      }
    }
  }
  return shapes;
}

TEST(Schedule, Of1F1B) {
  const PipelineShape shape{4, 1, 5};
  EXPECT_EQ(in_words(pipeline_schedule(shape, 0)),
            "F0.0 F1.0 F2.0 F3.0 B0.0 F4.0 B1.0 B2.0 B3.0 B4.0");
  EXPECT_EQ(in_words(pipeline_schedule(shape, 2)),
            "F0.0 F1.0 B0.0 F2.0 B1.0 F3.0 B2.0 F4.0 B3.0 B4.0");
  EXPECT_EQ(in_words(pipeline_schedule(shape, 3)),
            "F0.0 B0.0 F1.0 B1.0 F2.0 B2.0 F3.0 B3.0 F4.0 B4.0");
}

TEST(Schedule, Of1F1BWithFewerMicroBatchesThanStages) {
  EXPECT_EQ(in_words(pipeline_schedule({4, 1, 2}, 0)), "F0.0 F1.0 B0.0 B1.0");
  EXPECT_EQ(in_words(pipeline_schedule({1, 1, 2}, 0)), "F0.0 B0.0 F1.0 B1.0");
}

TEST(Schedule, OfInterleavedChunks) {
  const PipelineShape shape{2, 2, 4};
  EXPECT_EQ(in_words(pipeline_schedule(shape, 0)),
            "F0.0 F1.0 F0.1 F1.1 F2.0 B0.1 F3.0 B1.1 F2.1 B0.0 F3.1 B1.0 B2.1 B3.1 B2.0 B3.0");
  EXPECT_EQ(in_words(pipeline_schedule(shape, 1)),
            "F0.0 F1.0 F0.1 B0.1 F1.1 B1.1 F2.0 B0.0 F3.0 B1.0 F2.1 B2.1 F3.1 B3.1 B2.0 B3.0");
}

TEST(Schedule, OfOneGroupGoesForwardAndThenBackward) {
  EXPECT_EQ(in_words(pipeline_schedule({2, 2, 2}, 0)), "F0.0 F1.0 F0.1 F1.1 B0.1 B1.1 B0.0 B1.0");
}

TEST(Schedule, OfALastGroupThatIsSmaller) {
  EXPECT_EQ(in_words(pipeline_schedule({2, 2, 5, 3}, 1)),
            "F0.0 F1.0 F2.0 F0.1 B0.1 F1.1 B1.1 F2.1 B2.1 F3.0 B0.0 F4.0 B1.0 F3.1 B2.0 F4.1 B3.1 "
            "B4.1 B3.0 B4.0");
}

TEST(Schedule, DoesEveryPieceOnceAndForwardFirst) {
  for (const PipelineShape& shape : legal_shapes()) {
    for (const Schedule& schedule : all_stages(shape)) {
      ASSERT_EQ(completeness_fault(shape, schedule), "") << describe(shape);
    }
  }
}

TEST(Schedule, NeverWaitsForEverAndMessagesComeInOrder) {
  for (const PipelineShape& shape : legal_shapes()) {
    ASSERT_EQ(Pipeline(shape).run(), "") << describe(shape);
  }
}

TEST(Schedule, HoldsNoMoreThan1F1BPromises) {
  for (const PipelineShape& shape : legal_shapes()) {
    for (int stage = 0; stage < shape.stages; ++stage) {
      const std::vector<int> held = slots_in_flight(pipeline_schedule(shape, stage));
      const int most = *std::max_element(held.begin(), held.end());
      ASSERT_EQ(held.back(), 0) << describe(shape);
      ASSERT_GE(*std::min_element(held.begin(), held.end()), 0) << describe(shape);
      if (shape.chunks > 1) continue;
      ASSERT_EQ(most, std::min(shape.micro_batches, shape.stages - stage)) << describe(shape);
    }
  }
}

TEST(Schedule, OfChunksHoldsItsWarmUpAndOneMore) {
  const auto most = [](const PipelineShape& shape, int stage) {
    const std::vector<int> held = slots_in_flight(pipeline_schedule(shape, stage));
    return *std::max_element(held.begin(), held.end());
  };
  EXPECT_EQ(most({4, 2, 8}, 0), 2 * 3 + 4 + 1);
  EXPECT_EQ(most({4, 2, 8}, 3), 4 + 1);
  EXPECT_EQ(most({4, 3, 10, 5}, 1), 2 * 2 + 2 * 5 + 1);
  EXPECT_EQ(most({4, 2, 4}, 0), 8) << "all of them";
}

TEST(SlotsInFlight, CountsWhatForwardTakesAndBackwardFrees) {
  EXPECT_EQ(slots_in_flight(pipeline_schedule({2, 1, 3}, 0)), (std::vector<int>{1, 2, 1, 2, 1, 0}));
  EXPECT_EQ(slots_in_flight({}), std::vector<int>{});
}

TEST(ScheduleFault, NamesNumbersAndWhatWouldDo) {
  EXPECT_EQ(schedule_fault({4, 2, 6}),
            "parallel.vpp = 2 takes 6 micro-batches per rank in groups of parallel.pp = 4, and the "
            "last 2 of them are too few for parallel.pp = 4; 4 or 8 would do, and so would "
            "parallel.vpp_group_size = 6");
  EXPECT_EQ(schedule_fault({4, 2, 12, 5}),
            "parallel.vpp = 2 takes 12 micro-batches per rank in groups of "
            "parallel.vpp_group_size = 5, and the last 2 of them are too few for parallel.pp = 4; "
            "10 or 14 would do, and so would parallel.vpp_group_size = 4");
  EXPECT_EQ(schedule_fault({4, 2, 2}),
            "parallel.vpp = 2 needs at least parallel.pp = 4 micro-batches per rank; this run has "
            "2, and 4 would do, and so would parallel.vpp = 1");
  EXPECT_EQ(schedule_fault({4, 2, 5, 6}),
            "parallel.vpp = 2 needs at least parallel.vpp_group_size = 6 micro-batches per rank; "
            "this run has 5, and 6 would do, and so would parallel.vpp_group_size = 5");
  EXPECT_EQ(schedule_fault({4, 2, 8, 3}),
            "parallel.vpp_group_size = 3 is less than parallel.pp = 4; 4 would do, or 0, which "
            "takes parallel.pp");
  EXPECT_EQ(schedule_fault({1, 2, 8}),
            "parallel.vpp = 2 needs more than one stage, but parallel.pp = 1; parallel.vpp = 1 or "
            "parallel.pp = 2 would do");
  EXPECT_EQ(schedule_fault({2, 2, 4, -1}),
            "parallel.pp = 2, parallel.vpp = 2 and 4 micro-batches per rank must be at least 1, "
            "and parallel.vpp_group_size = -1 at least 0");
  EXPECT_NE(schedule_fault({0, 1, 1}), "");
  EXPECT_NE(schedule_fault({1, 0, 1}), "");
  EXPECT_NE(schedule_fault({1, 1, 0}), "");
}

TEST(ScheduleFault, AcceptsEveryNumberOfMicroBatchesOfOneChunk) {
  EXPECT_EQ(schedule_fault({8, 1, 1}), "");
  EXPECT_EQ(schedule_fault({8, 1, 9, 3}), "") << "the group plays no part";
}

TEST(Schedule, WhatHasAFaultIsAnError) {
  expect_error([] { pipeline_schedule({4, 2, 6}, 0); }, ExitCode::internal, {"4 or 8 would do"});
  expect_error(
      [] {
        pipeline_schedule({4, 1, 6}, 4);
      },
      ExitCode::internal, {"no stage 4 in a pipeline of 4"});
  expect_error([] { pipeline_schedule({4, 1, 6}, -1); }, ExitCode::internal, {"no stage -1"});
}

PipelineShape any_shape() {
  PipelineShape shape;
  shape.stages = *rc::gen::inRange(1, 17);
  shape.chunks = *rc::gen::inRange(1, 9);
  shape.group = *rc::gen::inRange(0, 25);
  shape.micro_batches = *rc::gen::inRange(1, 65);
  return shape;
}

/// The rule, written down once more.
bool is_legal(const PipelineShape& shape) {
  if (shape.chunks == 1) return true;
  const int group = shape.group == 0 ? shape.stages : shape.group;
  const int rest = shape.micro_batches % group;
  return shape.stages > 1 && group >= shape.stages && group <= shape.micro_batches &&
         (rest == 0 || rest >= shape.stages);
}

RC_GTEST_PROP(Schedule, LegalShapesRunAndOthersAreRefused, ()) {
  PipelineShape shape = any_shape();
  RC_ASSERT(schedule_fault(shape).empty() == is_legal(shape));
  if (!is_legal(shape)) shape = {shape.stages, 1, shape.micro_batches};
  for (const Schedule& schedule : all_stages(shape)) {
    RC_ASSERT(completeness_fault(shape, schedule) == "");
  }
  RC_ASSERT(Pipeline(shape).run() == "");
}

RC_GTEST_PROP(Schedule, EveryStageGoesForwardInTheSameOrder, ()) {
  PipelineShape shape = any_shape();
  if (!is_legal(shape)) shape.chunks = 1;
  const auto forward = [&](int stage) {
    Schedule schedule = pipeline_schedule(shape, stage);
    std::erase_if(schedule, [](const PipelineWork& work) { return work.kind == Kind::backward; });
    return schedule;
  };
  RC_ASSERT(forward(0) == forward(*rc::gen::inRange(0, shape.stages)));
}

}  // namespace
}  // namespace konclave
