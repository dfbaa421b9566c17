#include "base/dtype.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace konclave {
namespace {

constexpr std::uint32_t kPatterns = 1U << 16;

Bf16 from_bits(std::uint32_t bits) {
  Bf16 value;
  value.bits = static_cast<std::uint16_t>(bits);
  return value;
}

float float_of(std::uint32_t word) { return std::bit_cast<float>(word); }

TEST(Bf16, EveryPatternSurvivesTheWayThroughFloat) {
  for (std::uint32_t bits = 0; bits < kPatterns; ++bits) {
    const float value = from_bits(bits);
    const std::uint16_t back = Bf16(value).bits;
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(float(from_bits(back)))) << bits;
      EXPECT_EQ(back, bits | 0x40U) << "a NaN becomes quiet and keeps its payload";
    } else {
      EXPECT_EQ(back, bits);
    }
  }
}

// Between two neighbours of one sign lie 65535 floats: the nearer neighbour is taken, and of the
// middle the one with an even last bit. That holds for denormals, and for the step to infinity.
TEST(Bf16, RoundsToNearestEvenBetweenAllNeighbours) {
  for (std::uint32_t bits = 0; bits < kPatterns; ++bits) {
    if ((bits & 0x7fffU) >= 0x7f80U) continue;  // infinity and NaN have no upper neighbour
    const std::uint32_t lower = bits << 16;
    EXPECT_EQ(Bf16(float_of(lower + 1)).bits, bits);
    EXPECT_EQ(Bf16(float_of(lower + 0x7fff)).bits, bits);
    EXPECT_EQ(Bf16(float_of(lower + 0x8000)).bits, bits + (bits & 1U)) << "a tie";
    EXPECT_EQ(Bf16(float_of(lower + 0x8001)).bits, bits + 1);
    EXPECT_EQ(Bf16(float_of(lower + 0xffff)).bits, bits + 1);
  }
}

TEST(Bf16, TheErrorIsAtMostHalfAUnitInTheLastPlace) {
  for (std::uint32_t i = 0; i < 100'000; ++i) {
    const float value = float_of(0x3f800000U + i * 83U);  // 1 <= value < 2, one ulp is 2^-7
    EXPECT_LE(std::abs(float(Bf16(value)) - value), 0x1p-8F) << value;
  }
}

TEST(Bf16, KnownValues) {
  EXPECT_EQ(Bf16(1.0F).bits, 0x3f80);
  EXPECT_EQ(Bf16(-2.0F).bits, 0xc000);
  EXPECT_EQ(Bf16(3.14159265F).bits, 0x4049);
  EXPECT_EQ(Bf16(-0.0F).bits, 0x8000);
}

TEST(Bf16, InfinityAndNaN) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(float(Bf16(infinity)), infinity);
  EXPECT_EQ(float(Bf16(-infinity)), -infinity);
  EXPECT_EQ(float(Bf16(std::numeric_limits<float>::max())), infinity) << "above the last half";
  // A NaN whose payload sits in the lower half only must not become infinity.
  EXPECT_TRUE(std::isnan(float(Bf16(float_of(0x7f800001U)))));
  EXPECT_TRUE(std::isnan(float(Bf16(float_of(0xffffffffU)))));
}

TEST(DType, SizesNamesAndAccumulators) {
  EXPECT_EQ(size_of(DType::bf16), sizeof(Bf16));
  EXPECT_EQ(size_of(DType::fp32), sizeof(float));
  EXPECT_EQ(size_of(DType::fp64), sizeof(double));
  EXPECT_EQ(name_of(DType::bf16), "bf16");
  EXPECT_EQ(name_of(DType::fp32), "fp32");
  EXPECT_EQ(name_of(DType::fp64), "fp64");
  EXPECT_EQ(accum_type(DType::bf16), DType::fp32);
  EXPECT_EQ(accum_type(DType::fp32), DType::fp32);
  EXPECT_EQ(accum_type(DType::fp64), DType::fp64);
}

TEST(DType, DispatchFindsTheTypeBehindTheTag) {
  for (const DType type : {DType::bf16, DType::fp32, DType::fp64}) {
    dispatch(type, [&](auto tag) {
      using X = typename decltype(tag)::type;
      EXPECT_EQ(kDTypeOf<X>, type);
      EXPECT_EQ(sizeof(X), size_of(type));
      EXPECT_EQ(kDTypeOf<Accum<X>>, accum_type(type));
    });
  }
}

}  // namespace
}  // namespace konclave
