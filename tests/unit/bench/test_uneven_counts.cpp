#include "bench/products.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

namespace konclave {
namespace {

TEST(UnevenCounts, AddUpAndDiffer) {
  std::set<std::vector<int>> seen;
  for (std::uint64_t call = 0; call < 20; ++call) {
    const std::vector<int> counts = uneven_counts(8, 2048, call);
    ASSERT_EQ(counts.size(), 8U);
    EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), 0), 2048);
    EXPECT_LT(*std::min_element(counts.begin(), counts.end()), 256);
    EXPECT_GT(*std::max_element(counts.begin(), counts.end()), 256);
    EXPECT_EQ(counts, uneven_counts(8, 2048, call));
    seen.insert(counts);
  }
  EXPECT_EQ(seen.size(), 20U);
}

TEST(UnevenCounts, OfOneExpertAndOfNoRows) {
  EXPECT_EQ(uneven_counts(1, 9, 0), std::vector<int>{9});
  EXPECT_EQ(uneven_counts(3, 0, 0), (std::vector<int>{0, 0, 0}));
}

}  // namespace
}  // namespace konclave
