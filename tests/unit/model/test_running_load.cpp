#include "moe/running_load.hpp"
#include "tests/unit/model/workbench.hpp"

namespace konclave {
namespace {

using Values = std::vector<double>;

constexpr int kMicroBatches = 3, kLayers = 2, kExperts = 3, kTopK = 2;

MoeConfig config() {
  MoeConfig moe;
  moe.num_experts = kExperts;
  moe.top_k = kTopK;
  return moe;
}

/// Memory for the counts of a step, which nobody sets to 0.
struct Step : Workbench {
  Step() { step.running = {sums.as2<double>(), kLayers}; }

  /// Load by the counts of two sequences.
  Values load(int micro_batch, int layer, const Values& counts) {
    step.running.micro_batch = micro_batch;
    const AnyView of_sequences = tensors.values(DType::fp64, counts, 2, kExperts);
    const AnyView load = tensors.poisoned(DType::fp64, kExperts);
    running_load(context(), config(), *groups.tp_cp, *groups.dp, step, of_sequences.as2<double>(),
                 layer, load.as1<double>());
    return to_doubles(exec, load);
  }

  const Groups groups = Groups::alone();
  AnyView sums = tensors.poisoned(DType::fp64, kMicroBatches* kLayers, kExperts);
  MoeStep step;
};

/// Micro-batches of four tokens with two experts each.
TEST(RunningLoad, IsOfTheMicroBatchesSoFar) {
  Step step;
  EXPECT_EQ(step.load(0, 0, {2, 1, 1, 4, 0, 0}), (Values{6.0 / 4, 1.0 / 4, 1.0 / 4}));
  EXPECT_EQ(step.load(0, 1, {0, 2, 2, 0, 2, 2}), (Values{0, 1, 1}));
  EXPECT_EQ(step.load(1, 0, {0, 2, 2, 0, 4, 0}), (Values{6.0 / 8, 7.0 / 8, 3.0 / 8}));
  EXPECT_EQ(step.load(2, 0, {1, 3, 0, 1, 2, 1}), (Values{8.0 / 12, 12.0 / 12, 4.0 / 12}));
  EXPECT_EQ(step.load(1, 1, {4, 0, 0, 4, 0, 0}), (Values{1, 0.5, 0.5}));
  EXPECT_EQ(step.load(0, 0, {4, 0, 0, 0, 4, 0}), (Values{1, 1, 0})) << "the next step";
}

/// In any order, and whatever it would count.
TEST(RunningLoad, IsTheSameWhereForwardIsDoneAgain) {
  Step step;
  const Values first = step.load(0, 1, {2, 1, 1, 4, 0, 0});
  const Values second = step.load(1, 1, {0, 2, 2, 0, 4, 0});
  const Values counted = to_doubles(step.exec, step.sums.slice(1, 1));
  step.step.counts = false;
  EXPECT_EQ(step.load(1, 1, {8, 0, 0, 0, 0, 0}), second);
  EXPECT_EQ(step.load(0, 1, {8, 0, 0, 0, 0, 0}), first);
  EXPECT_EQ(to_doubles(step.exec, step.sums.slice(1, 1)), counted);
}

TEST(RunningLoad, OfNoTokensIsNone) { EXPECT_EQ(Step().load(0, 0, Values(6, 0)), Values(3, 0)); }

}  // namespace
}  // namespace konclave
