#include "moe/routing_memory.hpp"
#include "tests/unit/model/workbench.hpp"

namespace konclave {
namespace {

using Values = std::vector<double>;

/// Two layers of three experts.
struct Memory : Workbench {
  explicit Memory(const MoeConfig& config) : memory(exec, weights, 2, config) {}
  void update(const Values& chosen, const Values& counted) {
    memory.update(exec, chosen, counted, /*tokens=*/4);
  }
  Values bias() const { return to_doubles(exec, memory.expert_bias()); }
  Values load() const { return to_doubles(exec, memory.previous_load()); }

  RoutingMemory memory;
};

MoeConfig config(bool biased) {
  MoeConfig moe;
  moe.num_experts = 3;
  moe.top_k = 2;
  moe.expert_bias = biased;
  moe.expert_bias_update_rate = 0.25;
  return moe;
}

TEST(RoutingMemory, BiasGoesTowardsTheMeanLoad) {
  Memory memory(config(/*biased=*/true));
  EXPECT_EQ(memory.bias(), Values(6, 0));
  EXPECT_EQ(memory.load(), Values(6, 2.0 / 3));
  memory.update({4, 0, 2, 8, 8, 8}, {3, 1, 2, 0, 4, 4});
  EXPECT_EQ(memory.bias(), (Values{-0.25, 0.25, 0, 0, 0, 0}));
  EXPECT_EQ(memory.load(), (Values{0.75, 0.25, 0.5, 0, 1, 1}));
  memory.update({3, 3, 0, 1, 0, 0}, Values(6, 0));
  EXPECT_EQ(memory.bias(), (Values{-0.5, 0, 0.25, -0.25, 0.25, 0.25}));
}

TEST(RoutingMemory, GoesOnWhereARouterReadsIt) {
  EXPECT_TRUE(Memory(config(/*biased=*/true)).memory.goes_on());
  MoeConfig settings = config(/*biased=*/false);
  EXPECT_FALSE(Memory(settings).memory.goes_on());
  settings.balancing = {"aux_loss", "global_aux_loss"};
  EXPECT_TRUE(Memory(settings).memory.goes_on());
  settings.global_aux_counts = "running";
  EXPECT_FALSE(Memory(settings).memory.goes_on()) << "a step counts from 0";
}

TEST(RoutingMemory, WithoutABiasThereIsNone) {
  Memory memory(config(/*biased=*/false));
  memory.update({4, 0, 2, 8, 8, 8}, Values(6, 1));
  EXPECT_EQ(memory.bias(), Values(6, 0));
}

/// Steps are of fp32, as the bias is kept: ten of 0.1 are what ten additions in fp32 give.
TEST(RoutingMemory, BiasIsKeptInFp32) {
  MoeConfig settings = config(/*biased=*/true);
  settings.expert_bias_update_rate = 0.1;
  Memory memory(settings);
  float sum = 0;
  for (int i = 0; i < 10; ++i) {
    memory.update({0, 3, 3, 0, 0, 0}, Values(6, 1));
    sum += 0.1F;
  }
  EXPECT_EQ(memory.bias().front(), sum);
}

}  // namespace
}  // namespace konclave
