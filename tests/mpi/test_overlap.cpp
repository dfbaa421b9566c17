#include "tests/mpi/timed_operations.hpp"
#include "tests/mpi/training_over_ranks.hpp"

#include <algorithm>

/// What communication beside computing gains, in a time of its own: products and attention take as
/// long as their operations say, and messages move behind calls into the transport alone.
namespace konclave {
namespace {

ModelDefinition deep_model() {
  ModelDefinition definition = tiny_model();
  definition.model.num_layers = 10;
  definition.moe.layer_frequency.assign(10, 0);
  definition.moe.layer_frequency[6] = 1;
  return definition;
}

/// Seconds of forward, backward and a whole step, the third and fourth on average.
struct Seconds {
  double forward, backward, step;
};

class OverlapTest : public testing::Test {
 protected:
  /// With messages of `bandwidth` bytes a second that move for `window` seconds behind each call.
  Seconds run(const ParallelConfig& parallel, double bandwidth, double window, bool polls = true) {
    const auto clock = std::make_shared<VirtualClock>(window);
    virtual_work = {clock.get(), kLength};
    Groups late = all_.groups;
    for (Groups::Group* group : {&late.dp_cp, &late.tp_dp_cp, &late.expert_dp}) {
      *group = std::make_shared<DelayedTransport>(*group, clock, Link{0, bandwidth, true});
    }
    const auto runner = tiny_runner(deep_model(), timed_table(), late);
    Trainer trainer(*runner, tiny_settings(), 100, parallel);
    if (!polls) clock->ignore_polls();
    const auto step = [&](int number) {
      const std::vector<HostMicroBatch> batches = tiny_batches(4, 4, number);
      trainer.step(number, batches);
    };
    step(1);
    step(2);
    const double begin = clock->now();
    virtual_work.forward = virtual_work.backward = 0;
    step(3);
    step(4);
    const Seconds seconds{virtual_work.forward / 2, virtual_work.backward / 2,
                          (clock->now() - begin) / 2};
    longest_ = virtual_work.longest;
    trainer.optimizer().restore_values(runner->exec());
    return seconds;
  }

  /// Bytes that come to this rank: gradients of what it owns from all, and all values.
  struct Bytes {
    double gradients = 0, values = 0;
  };
  Bytes bytes() {
    const auto runner = tiny_runner(deep_model(), built_backends(), all_.groups);
    Bytes sum;
    for (const GradBucket& bucket :
         make_grad_buckets(runner->model(), all_.groups, distributed(true).bucket_size)) {
      const std::int64_t mine = bucket.shares()[static_cast<std::size_t>(bucket.group->rank())];
      const std::int64_t received = std::max(bucket.elements, bucket.group->size() * mine);
      sum.gradients += static_cast<double>(received) * sizeof(double);
      sum.values += static_cast<double>(bucket.elements) * sizeof(double);
    }
    return sum;
  }

  static ParallelConfig distributed(bool overlap) {
    ParallelConfig parallel;
    parallel.distributed_optimizer = true;
    parallel.overlap_grad_reduce = parallel.overlap_param_gather = overlap;
    parallel.bucket_size = 128;
    return parallel;
  }

  AllRanks all_;
  double longest_ = 0;
};

/// The step takes the longer of computing and communication, forward with the values and backward
/// with the gradients, and without overlap both.
TEST_F(OverlapTest, TheStepTakesTheLongerOfComputingAndCommunication) {
  if (all_.world.size() == 1) GTEST_SKIP() << "one rank has nothing to send";
  const double forever = std::numeric_limits<double>::infinity();
  const Seconds alone = run(distributed(false), forever, forever);
  EXPECT_NEAR(alone.step, alone.forward + alone.backward, 1e-6 * alone.step);
  const double computing = alone.forward + alone.backward, window = 1.01 * longest_;
  const Bytes sent = bytes();
  for (const double ratio : {0.25, 1.0, 4.0}) {
    SCOPED_TRACE(testing::Message() << "communication takes " << ratio << " of computing");
    const double bandwidth = (sent.gradients + sent.values) / (ratio * computing);
    const double gradients = sent.gradients / bandwidth, values = sent.values / bandwidth;

    const double apart = run(distributed(false), bandwidth, window).step;
    const double beside = run(distributed(true), bandwidth, window).step;

    EXPECT_NEAR(apart, computing + gradients + values, 0.1 * apart);
    const double longer = std::max(alone.forward, values) + std::max(alone.backward, gradients);
    EXPECT_NEAR(beside, longer, 0.1 * longer);
  }
}

/// Nothing moves by itself: it is the pauses behind products that let messages go on.
TEST_F(OverlapTest, NeedsThePausesBehindProducts) {
  if (all_.world.size() == 1) GTEST_SKIP() << "one rank has nothing to send";
  const double forever = std::numeric_limits<double>::infinity();
  const Seconds alone = run(distributed(false), forever, forever);
  const double computing = alone.forward + alone.backward, window = 1.01 * longest_;
  const double bandwidth = bytes().values / (computing / 2);

  const double with = run(distributed(true), bandwidth, window).step;
  const double without = run(distributed(true), bandwidth, window, /*polls=*/false).step;

  EXPECT_GT(without, 1.2 * with);
}

}  // namespace
}  // namespace konclave
