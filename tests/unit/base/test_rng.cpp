#include "base/rng.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

namespace konclave {
namespace {

using Words = std::array<std::uint32_t, 4>;

// Known answers of Random123 (kat_vectors, philox4x32 with 10 rounds).
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Fnv1a, KnownAnswers) {
  EXPECT_EQ(fnv1a(""), 0xcbf29ce484222325ULL);
  EXPECT_EQ(fnv1a("a"), 0xaf63dc4c8601ec8cULL);
  EXPECT_EQ(fnv1a("foobar"), 0x85944171f73967e8ULL);
}

TEST(RandomStream, IsPhiloxOfIndexAndPurposeUnderTheSeed) {
  const std::uint64_t seed = 0x0123456789abcdefULL, index = 0xfedcba9876543210ULL;
  const std::uint64_t purpose = fnv1a("embedding.weight");
  const Words words = philox({0x76543210, 0xfedcba98, static_cast<std::uint32_t>(purpose),
                              static_cast<std::uint32_t>(purpose >> 32)},
                             {0x89abcdef, 0x01234567});
  EXPECT_EQ(RandomStream(seed, "embedding.weight").bits(index),
            static_cast<std::uint64_t>(words[0]) << 32 | words[1]);
}

TEST(RandomStream, SeedPurposeAndIndexAllMatter) {
  std::set<std::uint64_t> seen;
  for (const std::uint64_t seed : {0ULL, 1ULL, 1ULL << 32}) {
    for (const char* purpose : {"a", "b"}) {
      for (const std::uint64_t index : {0ULL, 1ULL, 1ULL << 32}) {
        seen.insert(RandomStream(seed, purpose).bits(index));
      }
    }
  }
  EXPECT_EQ(seen.size(), 18U);
}

TEST(RandomStream, UniformFillsTheUnitIntervalEvenly) {
  constexpr int kBins = 16, kDraws = 160'000;
  const RandomStream stream(7, "uniform");
  std::vector<int> bins(kBins);
  for (int i = 0; i < kDraws; ++i) {
    const double u = stream.uniform(static_cast<std::uint64_t>(i));
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    ++bins[static_cast<std::size_t>(u * kBins)];
  }
  // Chi-squared with 15 degrees of freedom is above 45 once in 10^4; the draws are fixed.
  double chi_squared = 0;
  for (const int count : bins) {
    const double expected = double{kDraws} / kBins;
    chi_squared += (count - expected) * (count - expected) / expected;
  }
  EXPECT_LT(chi_squared, 45);
}

TEST(RandomStream, NormalHasTheMomentsOfANormal) {
  constexpr int kDraws = 200'000;
  const RandomStream stream(7, "normal");
  double first = 0, second = 0, third = 0, fourth = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double x = stream.normal(static_cast<std::uint64_t>(i));
    first += x / kDraws;
    second += x * x / kDraws;
    third += x * x * x / kDraws;
    fourth += x * x * x * x / kDraws;
  }
  // Five standard errors: sqrt(Var(x^k) / draws), Var(x^k) = 1, 2, 15, 96.
  const auto error = [](double variance) { return 5 * std::sqrt(variance / kDraws); };
  EXPECT_NEAR(first, 0, error(1));
  EXPECT_NEAR(second, 1, error(2));
  EXPECT_NEAR(third, 0, error(15));
  EXPECT_NEAR(fourth, 3, error(96));
}

TEST(RandomStream, NeighboursAreUncorrelated) {
  constexpr int kDraws = 100'000;
  const RandomStream stream(7, "normal"), other(8, "normal");
  double neighbours = 0, seeds = 0;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    neighbours += stream.normal(i) * stream.normal(i + 1) / kDraws;
    seeds += stream.normal(i) * other.normal(i) / kDraws;
  }
  EXPECT_NEAR(neighbours, 0, 5 / std::sqrt(kDraws));
  EXPECT_NEAR(seeds, 0, 5 / std::sqrt(kDraws));
}

bool is_bijection(const RandomPermutation& permutation) {
  std::vector<bool> hit(permutation.size());
  for (std::uint64_t i = 0; i < permutation.size(); ++i) {
    const std::uint64_t image = permutation(i);
    if (image >= permutation.size() || hit[image]) return false;
    hit[image] = true;
  }
  return true;
}

TEST(RandomPermutation, IsABijectionForEverySmallSize) {
  for (std::uint64_t size = 1; size <= 200; ++size) {
    EXPECT_TRUE(is_bijection(RandomPermutation(3, "shuffle", size))) << size;
  }
}

RC_GTEST_PROP(RandomPermutation, IsABijection, ()) {
  const auto seed = *rc::gen::arbitrary<std::uint64_t>();
  const auto size = *rc::gen::inRange<std::uint64_t>(1, 5000);
  RC_ASSERT(is_bijection(RandomPermutation(seed, "shuffle", size)));
}

// Worked out by an independent program: an order that changed would break the resume of old runs.
TEST(RandomPermutation, KnownAnswer) {
  const RandomPermutation permutation(1, "shuffle", 12);
  std::vector<std::uint64_t> images;
  for (std::uint64_t i = 0; i < 12; ++i) images.push_back(permutation(i));
  EXPECT_EQ(images, (std::vector<std::uint64_t>{9, 7, 0, 4, 3, 10, 11, 2, 1, 8, 6, 5}));
}

TEST(RandomPermutation, StaysInRangeForHugeSizes) {
  const std::uint64_t size = (std::uint64_t{1} << 40) + 12345;
  const RandomPermutation permutation(3, "shuffle", size);
  std::set<std::uint64_t> images;
  for (std::uint64_t i = 0; i < 1000; ++i) images.insert(permutation(size - 1 - i));
  EXPECT_EQ(images.size(), 1000U);
  EXPECT_LT(*images.rbegin(), size);
  EXPECT_GT(*images.rbegin(), size / 2) << "the images do not spread";
}

TEST(RandomPermutation, RefusesNoElementsAndForeignIndices) {
  expect_error([] { RandomPermutation(1, "shuffle", 0); }, ExitCode::internal, {"permutation"});
  expect_error([] { RandomPermutation(1, "shuffle", 5)(5); }, ExitCode::internal, {"outside"});
}

}  // namespace
}  // namespace konclave
