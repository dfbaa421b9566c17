#include "base/file.hpp"
#include "run/compare_metrics.hpp"
#include "run/step_recorder.hpp"
#include "tests/support/temporary_folder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace konclave {
namespace {

class Recorder : public testing::Test {
 protected:
  Recorder() {
    deck_.run.out = folder_.path("runs");
    deck_.definition.model.num_layers = 2;
    deck_.definition.moe.num_experts = 2;
    deck_.definition.moe.layer_frequency = {0, 1};
    run_.emplace(deck_.run, deck_.checkpoint);
  }
  std::string path(const std::string& name) const { return folder_.path("runs/run/" + name); }
  StepRecorder recorder() {
    return StepRecorder(*run_, deck_, [this](const std::string& text) { said_.push_back(text); });
  }
  static void record(StepRecorder& recorder, std::int64_t step) {
    StepFacts facts;
    facts.step = step;
    facts.seconds = 1;
    StepMetrics metrics;
    metrics.loss = 1.0 / static_cast<double>(step);
    metrics.layers.resize(1);
    metrics.layers[0].chosen = metrics.layers[0].kept = {static_cast<double>(step), 1};
    recorder.record(facts, metrics);
  }
  std::vector<std::string> event_files() const {
    std::vector<std::string> names = list_folder(path("."));
    std::erase_if(names, [](const std::string& name) { return !name.starts_with("events."); });
    return names;
  }

  TemporaryFolder folder_;
  Deck deck_;
  std::optional<RunFolder> run_;
  std::vector<std::string> said_;
};

TEST_F(Recorder, WritesAllThatIsAskedFor) {
  deck_.log.per_layer = true;
  StepRecorder one = recorder();
  one.open(0);
  record(one, 1);
  record(one, 2);
  const MetricLines lines = read_metrics(path("metrics.jsonl"));
  EXPECT_EQ(lines.at(2).at("layers").at(0).at("layer"), 1);
  EXPECT_EQ(event_files().size(), 1);
  EXPECT_EQ(read_routing_steps(path("routing.h5")).steps(), 0) << "not yet";
  one.flush();
  EXPECT_EQ(read_routing(path("routing.h5"), 0, 2).chosen, (std::vector<std::int64_t>{1, 1, 2, 1}));
  EXPECT_GT(one.seconds(), 0);
  EXPECT_THAT(said_, testing::IsEmpty());
}

TEST_F(Recorder, LeavesOutWhatIsNot) {
  deck_.log.tensorboard = false;
  deck_.definition.moe.num_experts = 0;
  StepRecorder one = recorder();
  one.open(0);
  record(one, 1);
  one.flush();
  EXPECT_FALSE(read_metrics(path("metrics.jsonl")).at(1).contains("layers"));
  EXPECT_EQ(event_files().size(), 0);
  EXPECT_FALSE(std::filesystem::exists(path("routing.h5")));
}

TEST_F(Recorder, AResumeCutsAll) {
  {
    StepRecorder one = recorder();
    one.open(0);
    for (std::int64_t step = 1; step <= 4; ++step) record(one, step);
    one.flush();
  }
  run_.reset();  // as another process would have it
  run_.emplace(deck_.run, deck_.checkpoint);
  StepRecorder two = recorder();
  two.open(2);
  record(two, 3);
  two.flush();
  EXPECT_EQ(read_metrics(path("metrics.jsonl")).size(), 3);
  EXPECT_THAT(read_routing_steps(path("routing.h5")).step, testing::ElementsAre(1, 2, 3));
  EXPECT_EQ(event_files().size(), 2);
}

TEST_F(Recorder, AFailureIsSaidOnceAndTheRunGoesOn) {
  StepRecorder one = recorder();
  one.open(0);
  record(one, 1);
  std::filesystem::rename(path("routing.h5"), path("away"));
  one.flush();
  record(one, 2);
  one.flush();
  ASSERT_EQ(said_.size(), 1);
  EXPECT_THAT(said_[0], testing::HasSubstr("the routing since step 1 is not written"));
  EXPECT_THAT(said_[0], testing::HasSubstr("routing.h5"));
  std::filesystem::rename(path("away"), path("routing.h5"));
  record(one, 3);
  one.flush();
  EXPECT_THAT(read_routing_steps(path("routing.h5")).step, testing::ElementsAre(1, 2, 3));
  EXPECT_EQ(said_.size(), 1);
  EXPECT_EQ(read_metrics(path("metrics.jsonl")).size(), 3);
}

}  // namespace
}  // namespace konclave
