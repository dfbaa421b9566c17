#include "tensor/compare.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace konclave {
namespace {

TEST(Difference, OfEqualValuesIsNothing) {
  const Difference none = difference({1, -2}, {1, -2});
  EXPECT_EQ(none.max_absolute, 0);
  EXPECT_EQ(none.relative_norm, 0);
  EXPECT_EQ(difference({}, {}).relative_norm, 0);
}

TEST(Difference, IsMeasuredAgainstTheSecond) {
  const Difference found = difference({3, 4, 7}, {0, 4, 3});  // 3, 0, 4 against a norm of 5
  EXPECT_DOUBLE_EQ(found.max_absolute, 4);
  EXPECT_DOUBLE_EQ(found.relative_norm, 1);
}

TEST(Difference, FromNothingIsTheNormOfTheFirst) {
  EXPECT_DOUBLE_EQ(difference({3, -4}, {0, 0}).relative_norm, 5);
}

TEST(Difference, ANaNIsInfinitelyFar) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  for (const Difference& found : {difference({nan, 1}, {0, 1}), difference({0, 1}, {0, nan})}) {
    EXPECT_EQ(found.max_absolute, infinity);
    EXPECT_EQ(found.relative_norm, infinity);
  }
}

TEST(Difference, WantsEqualSizes) {
  expect_error([] { difference({1}, {1, 2}); }, ExitCode::internal, {"sizes"});
}

}  // namespace
}  // namespace konclave
