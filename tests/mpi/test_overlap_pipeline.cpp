#include "tests/mpi/timed_operations.hpp"
#include "tests/mpi/training_over_ranks.hpp"

#include <algorithm>
#include <deque>
#include <limits>
#include <tuple>

/// Messages between stages beside their work, in a time of its own: products and attention take as
/// long as their operations say, and messages move behind calls into the transport of both sides.
namespace konclave {
namespace {

constexpr double kForever = std::numeric_limits<double>::infinity();
constexpr double kBytes = kLength * 8 * sizeof(double);  ///< of the model's boundary

/// Two layers for each of a stage's chunks.
ModelDefinition even_model(int chunks) {
  ModelDefinition definition = tiny_model();
  definition.model.num_layers = 2 * chunks;
  definition.moe.layer_frequency.assign(static_cast<std::size_t>(2 * chunks), 0);
  return definition;
}

/// Seconds of a piece of work on each stage.
struct Pieces {
  std::vector<double> forward, backward;
};

/// When the last stage has done a step whose messages take `message` seconds each on links between
/// neighbours that carry one at a time in each direction, and that wait for nobody. With `at_once`
/// they move only while their receiver waits for them.
double simulated(const PipelineShape& shape, const Pieces& pieces, double message,
                 bool at_once = false) {
  using Kind = PipelineWork::Kind;
  const int parts = shape.stages * shape.chunks;
  std::vector<std::vector<PipelineWork>> schedules;
  for (int stage = 0; stage < shape.stages; ++stage) {
    schedules.push_back(pipeline_schedule(shape, stage));
  }
  std::map<std::tuple<int, int, Kind>, std::deque<double>> sent;  // from, to: when
  std::map<std::tuple<int, int, Kind>, double> link_free;
  std::vector<std::size_t> next(schedules.size(), 0);
  std::vector<double> free(schedules.size(), 0);
  const auto advance = [&](int stage) {
    const auto at = static_cast<std::size_t>(stage);
    if (next[at] == schedules[at].size()) return false;
    const PipelineWork& work = schedules[at][next[at]];
    const bool forward = work.kind == Kind::forward;
    const int part = work.chunk * shape.stages + stage, way = forward ? 1 : -1;
    if (part != (forward ? 0 : parts - 1)) {
      const std::tuple route{(stage + shape.stages - way) % shape.stages, stage, work.kind};
      std::deque<double>& messages = sent[route];
      if (messages.empty()) return false;
      const double ready = std::max(messages.front(), at_once ? free[at] : link_free[route]);
      messages.pop_front();
      link_free[route] = ready + message;
      free[at] = std::max(free[at], ready + message);
    }
    free[at] += forward ? pieces.forward[at] : pieces.backward[at];
    const int to = part + way;
    if (0 <= to && to < parts) sent[{stage, to % shape.stages, work.kind}].push_back(free[at]);
    ++next[at];
    return true;
  };
  for (bool moves = true; moves;) {
    moves = false;
    for (int stage = 0; stage < shape.stages; ++stage) moves = advance(stage) || moves;
  }
  return *std::max_element(free.begin(), free.end());
}

class OverlapOfStages : public testing::TestWithParam<int> {
 protected:
  OverlapOfStages() {
    const int ranks = Communicator::world().size();
    shape_ = {ranks, GetParam(), 4 * ranks, 0};
    parallel_.pp = ranks;
    parallel_.vpp = shape_.chunks;
    // More than stages: what a chunk has sent may be on its way while others pass.
    if (shape_.chunks > 1) parallel_.vpp_group_size = shape_.group = 2 * ranks;
  }

  /// Seconds of a step with messages of so many seconds that move for `window` behind each call.
  double run(double message, double window, bool polls = true) {
    const auto clock = std::make_shared<VirtualClock>(window);
    if (!polls) clock->ignore_polls();
    virtual_work = {clock.get(), kLength};
    const AllRanks all(parallel_);
    Groups late = all.groups;
    late.pp = std::make_shared<DelayedTransport>(late.pp, clock, Link{0, kBytes / message});
    const ModelDefinition definition = even_model(shape_.stages * shape_.chunks);
    const auto runner = tiny_runner(definition, timed_table(), late);
    Trainer trainer(*runner, tiny_settings(), 100, parallel_);
    const std::vector<HostMicroBatch> batches =
        tiny_batches(shape_.micro_batches, /*micro_size=*/1, /*step=*/1);
    trainer.step(1, batches);
    return all.groups.world->max(clock->now());
  }

  /// What pieces of work take here, by a run without delay.
  Pieces measured() {
    run(0, kForever);
    const int pieces = shape_.micro_batches * shape_.chunks;
    Pieces all{std::vector<double>(static_cast<std::size_t>(shape_.stages), 0), {}};
    all.backward = all.forward;
    const auto rank = static_cast<std::size_t>(Communicator::world().rank());
    all.forward[rank] = virtual_work.forward / pieces;
    all.backward[rank] = virtual_work.backward / pieces;
    const AllRanks ranks;
    ranks.groups.world->sum(std::span(all.forward));
    ranks.groups.world->sum(std::span(all.backward));
    window_ = 1.01 * ranks.groups.world->max(virtual_work.longest);
    return all;
  }

  PipelineShape shape_;
  ParallelConfig parallel_;
  double window_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Chunks, OverlapOfStages, testing::Values(1, 2));

/// A step takes what its schedule says of stages that compute while messages move: the longer of
/// both, and the bubble, in which each waits for the other.
TEST_P(OverlapOfStages, TheStepTakesWhatItsScheduleSays) {
  if (shape_.stages == 1) GTEST_SKIP() << "one stage has nothing to send";
  const Pieces pieces = measured();
  const double piece = pieces.forward[0] + pieces.backward[0];
  for (const double ratio : {0.0, 0.25, 1.0, 4.0}) {
    SCOPED_TRACE(testing::Message() << "messages of a direction take " << ratio << " of computing");
    const double expected = simulated(shape_, pieces, ratio * piece);
    EXPECT_NEAR(run(ratio * piece, window_), expected, 0.01 * expected);
    // What the schedule leaves to hide; that of one chunk has every stage wait for its neighbour.
    if (ratio > 0) {
      EXPECT_GT(simulated(shape_, pieces, ratio * piece, /*at_once=*/true),
                (shape_.chunks > 1 ? 1.2 : 1.02) * expected);
    }
  }
}

/// Without the bubble: each further micro-batch takes the longer of computing and messages.
TEST_P(OverlapOfStages, AMicroBatchTakesTheLongerOfComputingAndMessages) {
  if (shape_.stages == 1) GTEST_SKIP() << "one stage has nothing to send";
  if (shape_.chunks == 1) GTEST_SKIP() << "where a stage waits for each gradient";
  const Pieces pieces = measured();
  const double piece = pieces.forward.back() + pieces.backward.back();
  const auto more = static_cast<double>(shape_.micro_batches * shape_.chunks);
  // With as long messages as pieces of work the order of the schedule makes stages wait.
  for (const double ratio : {0.25, 0.5, 4.0}) {
    SCOPED_TRACE(testing::Message() << "messages of a direction take " << ratio << " of computing");
    const double few = run(ratio * piece, window_);
    shape_.micro_batches *= 2;
    const double many = run(ratio * piece, window_);
    shape_.micro_batches /= 2;
    const double longer = std::max(1.0, ratio) * piece;
    EXPECT_NEAR((many - few) / more, longer, 0.1 * longer);
  }
}

/// Nothing moves by itself: it is the pauses behind products that let messages go on.
TEST_P(OverlapOfStages, NeedsThePausesBehindProducts) {
  if (shape_.stages == 1) GTEST_SKIP() << "one stage has nothing to send";
  if (shape_.chunks == 1) GTEST_SKIP() << "where little can be hidden";
  const Pieces pieces = measured();
  const double message = pieces.forward[0] + pieces.backward[0];
  EXPECT_GT(run(message, window_, /*polls=*/false), 1.2 * run(message, window_));
}

}  // namespace
}  // namespace konclave
