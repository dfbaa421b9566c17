#include "ops/fast_math.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

namespace konclave {
namespace {

/// |fast_exp(x) - exp(x)| in units of the last place of a float of that size.
double error_in_ulp(float x) {
  const double expected = std::exp(static_cast<double>(x));
  const int exponent = std::max(std::ilogb(expected), std::numeric_limits<float>::min_exponent - 1);
  return std::abs(fast_exp(x) - expected) / std::ldexp(1.0, exponent - 23);
}

/// Every 101st float of either sign from `first` to `last` (by magnitude).
double worst_error(float first, float last) {
  double worst = 0;
  const auto end = std::bit_cast<std::uint32_t>(last);
  for (auto bits = std::bit_cast<std::uint32_t>(first); bits <= end; bits += 101) {
    worst = std::max(worst, error_in_ulp(std::bit_cast<float>(bits)));
  }
  return worst;
}

TEST(FastExp, IsWithinItsErrorOverTheWholeRange) {
  EXPECT_LE(worst_error(0.0F, 88.37F), 1.4);
  EXPECT_LE(worst_error(-0.0F, -87.0F), 1.4);
  EXPECT_GT(worst_error(1.0F, 88.0F), 0.4) << "the measure itself does not see errors";
}

TEST(FastExp, SpecialValues) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(fast_exp(0.0F), 1.0F);
  EXPECT_EQ(fast_exp(-0.0F), 1.0F);
  for (const float x : {-87.01F, -88.0F, -1e4F, -3e38F, -kInfinity})
    EXPECT_EQ(fast_exp(x), 0.0F) << x;
  for (const float x : {88.4F, 89.0F, 1e4F, 3e38F, kInfinity})
    EXPECT_EQ(fast_exp(x), kInfinity) << x;
  EXPECT_TRUE(std::isnan(fast_exp(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_TRUE(std::isnan(fast_exp(-std::numeric_limits<float>::quiet_NaN())));
  EXPECT_EQ(fast_exp(1.25), std::exp(1.25));
}

TEST(FastLog, IsWithinItsErrorOverTheWholeRange) {
  double worst = 0, worst_near_one = 0;
  for (auto bits = std::bit_cast<std::uint32_t>(1.2e-38F);
       bits <= std::bit_cast<std::uint32_t>(3e38F); bits += 1013) {
    const auto x = std::bit_cast<float>(bits);
    const double expected = std::log(static_cast<double>(x)),
                 error = std::abs(fast_log(x) - expected);
    worst = std::max(worst, error / std::abs(expected));
    if (std::abs(expected) < 0.1) worst_near_one = std::max(worst_near_one, error);
  }
  EXPECT_LE(worst_near_one, 3e-8);
  EXPECT_LE(worst, 3e-7);
  EXPECT_GT(worst, 1e-8) << "the measure itself does not see errors";
}

TEST(FastLog, SpecialValues) {
  EXPECT_EQ(fast_log(1.0F), 0.0F);
  EXPECT_EQ(0.0F * fast_log(0.0F), 0.0F);
  EXPECT_EQ(0.0 * fast_log(0.0), 0.0);
  EXPECT_EQ(fast_log(2.5), std::log(2.5));
}

}  // namespace
}  // namespace konclave
