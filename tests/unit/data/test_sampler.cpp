#include "data/sampler.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace konclave {
namespace {

std::vector<std::int64_t> draw(const Sampler& sampler, std::int64_t from, std::int64_t count) {
  std::vector<std::int64_t> samples;
  for (std::int64_t i = 0; i < count; ++i) samples.push_back(sampler(from + i));
  return samples;
}

TEST(Sampler, TakesRowsInOrderOverAndOver) {
  EXPECT_EQ(draw(Sampler(3, false, 1), 0, 7), (std::vector<std::int64_t>{0, 1, 2, 0, 1, 2, 0}));
}

TEST(Sampler, ShuffledEpochHasEverySequenceOnce) {
  for (const std::int64_t size : {1, 2, 3, 7, 64, 65, 1000}) {
    const Sampler sampler(size, true, 17);
    for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
      std::vector<std::int64_t> seen = draw(sampler, epoch * size, size);
      std::sort(seen.begin(), seen.end());
      EXPECT_EQ(seen, draw(Sampler(size, false, 0), 0, size)) << size << ", epoch " << epoch;
    }
  }
}

TEST(Sampler, EpochsAndSeedsHaveTheirOwnOrder) {
  const std::int64_t size = 100;
  const Sampler sampler(size, true, 1);
  const auto first = draw(sampler, 0, size);
  EXPECT_NE(first, draw(Sampler(size, false, 1), 0, size)) << "not shuffled";
  EXPECT_NE(first, draw(sampler, size, size)) << "epochs 0 and 1";
  EXPECT_NE(first, draw(Sampler(size, true, 2), 0, size)) << "seeds 1 and 2";
}

TEST(Sampler, ShuffleLeavesNoTraceOfTheOrder) {
  // Of a random order of n, the mean of |place - sequence| is n/3 and its deviation over orders
  // about 0.15 sqrt(n): an order that only swaps neighbours is far below.
  const std::int64_t size = 3000;
  const Sampler sampler(size, true, 5);
  double distance = 0;
  for (std::int64_t i = 0; i < size; ++i) {
    distance += static_cast<double>(std::abs(sampler(i) - i)) / static_cast<double>(size);
  }
  EXPECT_NEAR(distance, 1000, 50);
}

// Worked out by an independent program: what a deck trained on stays what it trains on.
TEST(Sampler, KnownOrderOfTwoEpochs) {
  EXPECT_EQ(draw(Sampler(8, true, 1), 0, 16),
            (std::vector<std::int64_t>{6, 7, 3, 2, 5, 0, 4, 1, 4, 5, 7, 2, 0, 1, 6, 3}));
}

TEST(Sampler, ResumesFromTheNumberOfSamplesAlone) {
  const auto whole = draw(Sampler(10, true, 3), 0, 35);

  const auto rest = draw(Sampler(10, true, 3), 13, 22);

  EXPECT_TRUE(std::equal(rest.begin(), rest.end(), whole.begin() + 13));
}

TEST(Sampler, TakesNoEmptyDataAndNoNegativePosition) {
  expect_error([] { Sampler(0, false, 1); }, ExitCode::internal, {"at least one"});
  expect_error([] { Sampler(4, false, 1)(-1); }, ExitCode::internal, {"-1"});
}

}  // namespace
}  // namespace konclave
