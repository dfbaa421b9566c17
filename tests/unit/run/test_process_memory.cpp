#include "ops/backend_list.hpp"
#include "run/process_memory.hpp"
#include "tests/unit/model/tiny_model.hpp"

#include <gtest/gtest.h>

namespace konclave {
namespace {

constexpr double kMebi = 1 << 20;

/// About 7 million parameters: 110 MiB of weights, gradients and moments.
ModelDefinition model() {
  ModelDefinition definition = tiny_model(DType::fp32);
  definition.model.hidden_size = 512;
  definition.model.head_dim = 128;
  definition.model.ffn_hidden_size = 768;
  definition.moe.ffn_hidden_size = 768;
  return definition;
}

// In a program of its own: the peak of a process is that of all that it has done.
TEST(ProcessMemory, GrowsByWhatTheAccountSays) {
  if (!kHostAccessible) GTEST_SKIP() << "the memory of a device is not that of the process";
  const std::int64_t before = process_memory().peak;
  const auto runner = tiny_runner(model(), built_backends());
  Trainer trainer(*runner, OptimizerConfig(), 100);
  for (const int step : {1, 2}) trainer.step(step, tiny_batches(16, 8, step));

  const auto growth = static_cast<double>(process_memory().peak - before);
  const auto account = static_cast<double>(runner->memory().peak_total());
  EXPECT_GT(account, 80 * kMebi) << "large beside what is not in the account";
  EXPECT_LT(growth, 1.15 * account) << "memory that is not in the account";
  EXPECT_GT(growth, 0.9 * account) << "memory in the account that is not needed";
}

TEST(ProcessMemory, IsReadFromTheKernelsLines) {
  const std::string text = "Name:\tx\nVmHWM:\t    12 kB\nVmRSS:\t 5 kB\n";
  EXPECT_EQ(kernel_bytes(text, "VmHWM"), 12 * 1024);
  EXPECT_EQ(kernel_bytes(text, "VmRSS"), 5 * 1024);
  EXPECT_EQ(kernel_bytes(text, "RSS"), 0);
  EXPECT_EQ(kernel_bytes("", "VmRSS"), 0);
}

TEST(ProcessMemory, OfThisProcessHasItsPages) {
  const std::vector<char> pages(std::size_t{8} << 20, 'x');
  const ProcessMemory memory = process_memory();
  EXPECT_GE(memory.peak, static_cast<std::int64_t>(pages.size()));
  EXPECT_LE(memory.peak_of_all, memory.peak + (4 << 20));
}

}  // namespace
}  // namespace konclave
