#include "tests/mpi/training_over_ranks.hpp"
#include "tests/support/delayed_transport.hpp"

#include <cmath>

namespace konclave {
namespace {

constexpr int kSteps = 3;
constexpr BatchForm kBatch = {12, 1};  // for 1, 2, 3 and 4 ranks

ModelDefinition model(std::int64_t receive_budget = 0) {
  ModelDefinition definition = tiny_model();
  definition.moe.num_experts = 12;
  definition.moe.receive_budget = receive_budget;
  return definition;
}

int ranks() { return Communicator::world().size(); }

TEST(TrainerOverRanks, IsTheTrainerOfOneRank) {
  const Outcome whole(Training(Groups::alone(), model(), kBatch), kSteps);
  EXPECT_GT(std::abs(whole.steps[0].loss - whole.steps[1].loss), 1e-3);
  EXPECT_GT(whole.steps[0].aux_loss, 0.05);
  EXPECT_GT(whole.steps[0].z_loss, 0);
  EXPECT_GT(whole.steps[0].load_imbalance, 1);
  for (const int ep : ep_sizes(ranks())) {
    for (const char* order : {"tp-cp-ep-dp-pp", "dp-ep"}) {
      for (const char* grad_reduce : {"ordered", "library"}) {
        SCOPED_TRACE(testing::Message() << "ep " << ep << ", " << order << ", " << grad_reduce);
        const AllRanks all(ep, order);
        ParallelConfig parallel = all.groups.parallel;
        parallel.grad_reduce = grad_reduce;
        Training split(all.groups, model(), kBatch, parallel);
        expect_same(split, whole);
      }
    }
    SCOPED_TRACE(testing::Message() << "ep " << ep << ", a budget of 3 rows");
    const AllRanks all(ep);
    Training split(all.groups, model(/*receive_budget=*/3), kBatch);
    expect_same(split, whole);
  }
}

/// Every group but that of the world sends its messages with a delay.
Groups delayed(const Groups& groups, const std::shared_ptr<VirtualClock>& clock) {
  const auto delay = [&](const std::shared_ptr<const Transport>& group) {
    return std::make_shared<DelayedTransport>(group, clock, Link{1e-5, 1e9});
  };
  Groups late = groups;
  for (Groups::Group* group :
       {&late.tp, &late.cp, &late.dp, &late.pp, &late.tp_cp, &late.dp_cp, &late.tp_dp_cp, &late.etp,
        &late.ep, &late.etp_ep, &late.expert_dp}) {
    *group = delay(*group);
  }
  return late;
}

/// A training whose messages are late against one whose messages are not.
void expect_same_when_late(const AllRanks& all, const ModelDefinition& definition,
                           const BatchForm& batch, const ParallelConfig& parallel = {}) {
  const auto clock = std::make_shared<VirtualClock>();
  Training direct(all.groups, definition, batch, parallel);
  Training late(delayed(all.groups, clock), definition, batch, parallel);
  const bool in_order = parallel.grad_reduce == "ordered";
  expect_near(late.steps(kSteps), direct.steps(kSteps), in_order ? 0 : 1e-12);
  if (in_order) {
    EXPECT_EQ(weights_of(late), weights_of(direct));
  }
  EXPECT_GT(clock->now(), 0);
}

TEST(TrainerOverRanks, ReadsNothingBeforeItHasArrived) {
  for (const int ep : ep_sizes(ranks())) {
    for (const std::int64_t budget : {0, 3}) {
      for (const char* grad_reduce : {"ordered", "library"}) {
        SCOPED_TRACE(testing::Message() << "ep " << ep << ", budget " << budget);
        ParallelConfig parallel;
        parallel.grad_reduce = grad_reduce;
        expect_same_when_late(AllRanks(ep), model(budget), kBatch, parallel);
      }
      ParallelConfig parallel;
      parallel.distributed_optimizer = budget == 0;
      parallel.overlap_grad_reduce = parallel.overlap_param_gather = true;
      expect_same_when_late(AllRanks(ep), model(budget), kBatch, parallel);
    }
  }
}

/// Each way to share divisible_model(), by all ranks, and on four some in two at once.
std::map<std::string, ParallelConfig> ways_to_share(int ranks) {
  std::map<std::string, ParallelConfig> ways;
  ways["etp"].etp = ranks;
  ways["cp ring"].cp = ways["cp all_gather"].cp = ranks;
  ways["cp all_gather"].cp_comm = "all_gather";
  ways["pp"].pp = ways["vpp"].pp = ranks;
  if (ranks == 3) {
    ways["pp"].first_stage_layers = 2;
    ways["vpp"].layout = "Et|tt|t|tt|t|tL";
    return ways;  // which cannot share 8 heads
  }
  ways["vpp"].vpp = 2;
  ways["cp a2a"].cp = ways["tp"].tp = ranks;
  ways["cp a2a"].cp_comm = "a2a";
  ways["tp"].sp = true;
  if (ranks == 4) {
    ParallelConfig &chunks = ways["tp vpp ep"], &folded = ways["tp cp etp ep"];
    chunks.tp = folded.tp = chunks.pp = folded.cp = chunks.ep = folded.ep = folded.etp = 2;
    chunks.sp = folded.sp = true;
    chunks.vpp = 2;
  }
  return ways;
}

TEST(TrainerOverRanks, ReadsNothingBeforeItHasArrivedHoweverItIsShared) {
  if (ranks() == 1) GTEST_SKIP() << "one rank has nothing to wait for";
  for (const auto& [name, parallel] : ways_to_share(ranks())) {
    for (const char* dispatcher : {"alltoall", "allgather"}) {
      ModelDefinition definition = divisible_model();
      definition.moe.dispatcher = dispatcher;
      const bool gathers = definition.moe.dispatcher == "allgather";
      if (gathers && parallel.ep * parallel.etp == 1) continue;
      SCOPED_TRACE(testing::Message() << name << ", " << dispatcher);
      expect_same_when_late(AllRanks(parallel), definition, {12, 1});
      ParallelConfig distributed = parallel;
      distributed.distributed_optimizer = true;
      distributed.overlap_grad_reduce = distributed.overlap_param_gather = gathers;
      expect_same_when_late(AllRanks(parallel), definition, {12, 1}, distributed);
    }
  }
}

/// Whoever keeps the state: the weights of whole state, but for the order of the norm's sum. What
/// travels beside computing changes no bit.
TEST(TrainerOverRanks, DistributesItsStateHoweverTheModelIsShared) {
  std::map<std::string, ParallelConfig> ways;
  if (ranks() > 1) ways = ways_to_share(ranks());
  for (const int ep : ep_sizes(ranks())) ways[std::to_string(ep) + " ep"].ep = ep;
  for (auto& [name, parallel] : ways) {
    SCOPED_TRACE(name);
    const AllRanks all(parallel);
    Training plain(all.groups, divisible_model(), {12, 1}, parallel);
    const std::vector<StepMetrics> expected = plain.steps(kSteps);
    const Weights weights = weights_of(plain);

    ParallelConfig overlapped = parallel;
    overlapped.overlap_grad_reduce = true;
    Training beside(all.groups, divisible_model(), {12, 1}, overlapped);
    expect_near(beside.steps(kSteps), expected, 0);
    EXPECT_EQ(weights_of(beside), weights);

    parallel.distributed_optimizer = overlapped.distributed_optimizer = true;
    overlapped.overlap_param_gather = true;
    Training distributed(all.groups, divisible_model(), {12, 1}, parallel);
    const std::vector<StepMetrics> steps = distributed.steps(kSteps);
    expect_near(steps, expected, 1e-12);
    const Weights mine = weights_of(distributed);
    for (const auto& [tensor, values] : weights) {
      EXPECT_TRUE(close(mine.at(tensor), values, {1e-12, 1e-12})) << tensor;
    }

    Training both(all.groups, divisible_model(), {12, 1}, overlapped);
    expect_near(both.steps(kSteps), steps, 0);
    EXPECT_EQ(weights_of(both), mine);
  }
}

TEST(SumInOrder, AddsTheNumbersOfAllRanksFromTheFirstOn) {
  // Rounding makes the sum depend on its order.
  const auto number = [](int i) { return std::pow(-1e5, i % 5) + 1.0 / (i + 3); };
  const AllRanks all;
  const int rank = all.world.rank();
  const std::vector<double> mine = {number(3 * rank), number(3 * rank + 1), number(3 * rank + 2)};
  double expected = 0;
  for (int i = 0; i < 3 * all.world.size(); ++i) expected += number(i);
  EXPECT_EQ(sum_in_order(*all.groups.dp, mine), expected);
  EXPECT_EQ(sum_in_order(*all.groups.dp, {}), 0);
}

}  // namespace
}  // namespace konclave
