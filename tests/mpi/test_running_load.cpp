#include "tests/mpi/training_over_ranks.hpp"

#include <cmath>

namespace konclave {
namespace {

constexpr int kSteps = 2, kSequences = 12;

ModelDefinition model() {
  ModelDefinition definition = divisible_model();
  definition.moe.balancing = {"global_aux_loss", "aux_loss"};
  definition.moe.aux_loss_coefficients = {0.4, 0.1};
  definition.moe.global_aux_counts = "running";
  return definition;
}

/// Of every group of micro-batches that `dp` ranks have at the same place in the step, one.
std::vector<HostMicroBatch> at_the_same_place(const std::vector<HostMicroBatch>& all, int dp) {
  const std::size_t share = all.size() / static_cast<std::size_t>(dp);
  std::vector<HostMicroBatch> merged(share);
  for (std::size_t i = 0; i < all.size(); ++i) {
    HostMicroBatch& to = merged[i % share];
    to.tokens.insert(to.tokens.end(), all[i].tokens.begin(), all[i].tokens.end());
    to.labels.insert(to.labels.end(), all[i].labels.begin(), all[i].labels.end());
  }
  return merged;
}

/// One rank that takes the micro-batches of all ranks of dp at once.
Outcome in_lockstep(int dp) {
  Training whole(Groups::alone(), model(), {kSequences, 1});
  std::vector<StepMetrics> steps;
  for (int number = 1; number <= kSteps; ++number) {
    steps.push_back(whole.trainer.step(
        number, at_the_same_place(tiny_batches(kSequences, 1, number, whole.length), dp)));
  }
  Outcome outcome(std::move(whole), /*count=*/0);
  outcome.steps = steps;
  return outcome;
}

std::map<std::string, ParallelConfig> ways(int ranks) {
  std::map<std::string, ParallelConfig> all;
  all["dp"] = {};
  if (ranks == 1) return all;
  all["dp ep"].ep = all["cp"].cp = ranks;
  if (ranks == 3) return all;
  all["pp"].pp = all["vpp"].pp = all["tp"].tp = 2;
  all["vpp"].vpp = 2;
  all["tp"].sp = true;
  if (ranks == 4) all["dp cp"].cp = 2;
  return all;
}

TEST(RunningLoadOverRanks, IsThatOfOneRankWithAllMicroBatchesOfAPlace) {
  const int ranks = Communicator::world().size();
  std::map<int, Outcome> expected;
  for (const auto& [name, parallel] : ways(ranks)) {
    const int dp = ranks / (parallel.tp * parallel.cp * parallel.pp);
    if (expected.find(dp) == expected.end()) expected.emplace(dp, in_lockstep(dp));
    SCOPED_TRACE(name);
    const AllRanks all(parallel);
    ParallelConfig overlapped = parallel;
    overlapped.distributed_optimizer = true;
    overlapped.overlap_grad_reduce = overlapped.overlap_param_gather = true;
    Training split(all.groups, model(), {kSequences, 1}, overlapped);
    expect_same(split, expected.at(dp));
  }
}

/// By nature: more ranks of dp have fewer places in a step.
TEST(RunningLoadOverRanks, DependsOnDp) {
  const Outcome one = in_lockstep(1), three = in_lockstep(3);
  EXPECT_GT(std::abs(one.steps[0].aux_loss - three.steps[0].aux_loss), 1e-5);
  EXPECT_EQ(one.steps[0].load_imbalance, three.steps[0].load_imbalance);
}

}  // namespace
}  // namespace konclave
