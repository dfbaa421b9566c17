#include "ops/attention_merge.hpp"
#include "tests/unit/kernels/kernel_test.hpp"

#include <cmath>

namespace konclave {
namespace {

constexpr double kNone = -HUGE_VAL;

/// Output (heads*D) and log-sum-exp (heads) of each row.
struct Attention {
  Matrix o, lse;
};

Attention plain_merge(const Attention& a, const Attention& b) {
  Attention result = a;
  const std::int64_t size = a.o.columns / a.lse.columns;
  for (std::int64_t t = 0; t < a.o.rows; ++t) {
    for (std::int64_t h = 0; h < a.o.columns; ++h) {
      const std::int64_t head = h / size;
      const double of_a = std::exp(a.lse(t, head)), of_b = std::exp(b.lse(t, head));
      result.o(t, h) = of_a + of_b == 0 ? 0 : (of_a * a.o(t, h) + of_b * b.o(t, h)) / (of_a + of_b);
      result.lse(t, head) = std::log(of_a + of_b);
    }
  }
  return result;
}

class AttentionMerge : public KernelTest {
 protected:
  /// Some rows have seen no key.
  AnyView log_sums(const std::string& name, DType type, int rows, int heads, int period) {
    std::vector<double> values = random_values(name, std::int64_t{rows} * heads);
    for (std::size_t i = 0; i < values.size(); i += static_cast<std::size_t>(period)) {
      values[i] = kNone;
    }
    return tensors_.values(accum_type(type), values, rows, heads);
  }
  AnyView output(const std::string& name, DType type, const AnyView& lse, int size) {
    const Matrix sums = read(lse);
    const AnyView o = tensors_.random(name, type, sums.rows, sums.columns * size);
    Matrix values = read(o);
    for (std::int64_t t = 0; t < values.rows; ++t) {
      for (std::int64_t h = 0; h < values.columns; ++h) {
        if (sums(t, h / size) == kNone) values(t, h) = 0;
      }
    }
    from_doubles(exec_, values.values, o);
    return o;
  }
};

TEST_F(AttentionMerge, AgreesWithPlainLoop) {
  for_each_shape([&](DType type, int rows, int size) {
    for (const int heads : {1, 3}) {
      const AnyView lse = log_sums("lse", type, rows, heads, 2);
      const AnyView part_lse = log_sums("part_lse", type, rows, heads, 3);
      const AnyView o = output("o", accum_type(type), lse, size);
      const AnyView part_o = output("part_o", type, part_lse, size);
      const Attention expected = plain_merge({read(o), read(lse)}, {read(part_o), read(part_lse)});
      ops::merge_attention(exec_, part_o, part_lse, o, lse);
      expect_close(o, expected.o.values, tolerance(accum_type(type)), "o", /*typical=*/1);
      expect_close(lse, expected.lse.values, tolerance(accum_type(type)), "lse", /*typical=*/1);
    }
  });
}

TEST_F(AttentionMerge, LargeAndAbsentSumsAreSafe) {
  for (const DType type : kAccumTypes) {
    const AnyView o = tensors_.values(type, {1, 1, 0, 0, 5}, 5, 1);
    const AnyView part_o = tensors_.values(type, {3, 3, 7, 0, 6}, 5, 1);
    const AnyView lse = tensors_.values(type, {1000, 1000, kNone, kNone, -1000}, 5, 1);
    const AnyView part_lse = tensors_.values(type, {1000, -1000, -1000, kNone, kNone}, 5, 1);
    ops::merge_attention(exec_, part_o, part_lse, o, lse);
    expect_close(o, {2, 1, 7, 0, 5}, tolerance(type), "o");
    const Matrix sums = read(lse);
    EXPECT_EQ(sums(3, 0), kNone);
    EXPECT_NEAR(sums(0, 0), 1000 + std::log(2.0), 1e-4);
    EXPECT_EQ(sums(1, 0), 1000);
    EXPECT_EQ(sums(2, 0), -1000);
    EXPECT_EQ(sums(4, 0), -1000);
  }
}

TEST_F(AttentionMerge, WrongShapesAreRefused) {
  const auto merge = [&](int rows, int columns, int heads) {
    ops::merge_attention(exec_, tensors_.random("o", DType::fp32, 2, 6),
                         tensors_.random("lse", DType::fp32, rows, heads),
                         tensors_.random("o", DType::fp32, 2, columns),
                         tensors_.random("lse", DType::fp32, rows, heads));
  };
  EXPECT_NO_THROW(merge(2, 6, 3));
  EXPECT_THROW(merge(2, 6, 4), Error);
  EXPECT_THROW(merge(3, 6, 3), Error);
  EXPECT_THROW(merge(2, 3, 3), Error);
}

}  // namespace
}  // namespace konclave
