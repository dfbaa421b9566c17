#include "run/batches.hpp"

#include <gtest/gtest.h>

#include <numeric>

namespace konclave {
namespace {

/// 24 sequences of two tokens, 2 i and 2 i + 1.
TokenTable table() {
  std::vector<int> tokens(48);
  std::iota(tokens.begin(), tokens.end(), 0);
  return {tokens, {}, 2};
}

/// The micro-batches of all ranks of dp, those of rank 0 first.
std::vector<HostMicroBatch> of_all(const Sampler& sampler, int micro, int ranks) {
  BatchConfig batch;
  batch.global_size = 12;
  batch.micro_size = micro;
  std::vector<HostMicroBatch> all;
  for (int rank = 0; rank < ranks; ++rank) {
    const auto mine = read_batch(table(), sampler, batch, /*samples=*/12, rank, ranks);
    EXPECT_EQ(mine.size(), static_cast<std::size_t>(12 / micro / ranks));
    all.insert(all.end(), mine.begin(), mine.end());
  }
  return all;
}

TEST(ReadBatch, RanksHaveContiguousBlocksOfTheSameMicroBatches) {
  for (const bool shuffle : {false, true}) {
    const Sampler sampler(24, shuffle, /*seed=*/5);
    for (const int micro : {1, 3}) {
      const std::vector<HostMicroBatch> whole = of_all(sampler, micro, 1);
      std::int64_t sample = 12;
      for (const HostMicroBatch& batch : whole) {
        EXPECT_EQ(batch.first_sequence, sample);
        for (int i = 0; i < micro; ++i, ++sample) {
          EXPECT_EQ(batch.tokens[static_cast<std::size_t>(2 * i)], 2 * sampler(sample));
        }
      }
      for (const int ranks : {2, 4}) {
        const std::vector<HostMicroBatch> shared = of_all(sampler, micro, ranks);
        ASSERT_EQ(shared.size(), whole.size());
        for (std::size_t i = 0; i < whole.size(); ++i) {
          EXPECT_EQ(shared[i].tokens, whole[i].tokens) << ranks << " ranks, micro-batch " << i;
          EXPECT_EQ(shared[i].labels, whole[i].labels);
          EXPECT_EQ(shared[i].first_sequence, whole[i].first_sequence);
        }
      }
    }
  }
}

}  // namespace
}  // namespace konclave
