#include "ops/adamw.hpp"
#include "tests/unit/kernels/kernel_test.hpp"

#include <cmath>

namespace konclave {
namespace {

constexpr int kSizes[] = {0, 1, 31, 33, 1031};

class AdamW : public KernelTest {};

/// w = 1, gradients 1 and -0.5 with clip 0.5: those of 0.5 and -0.25. lr 0.1, decay 0.1.
TEST_F(AdamW, TwoStepsAreRightByHand) {
  for (const DType type : kAccumTypes) {
    const AnyView w = vector(type, {1}), m = vector(type, {0}), v = vector(type, {0});
    ops::AdamW rule{0.1, 0.9, 0.99, 0, 0.1, 0.5, 1};
    const Tolerance allowed = tolerance(type);

    ops::adamw(exec_, rule, vector(type, {1}), w, m, v, w);
    expect_close(m, {0.05}, allowed, "m of step 1");
    expect_close(v, {0.0025}, allowed, "v of step 1");
    expect_close(w, {0.89}, allowed, "w of step 1");

    rule.step = 2;
    ops::adamw(exec_, rule, vector(type, {-0.5}), w, m, v, w);
    expect_close(m, {0.02}, allowed, "m of step 2");
    expect_close(v, {0.0031}, allowed, "v of step 2");
    const double adam = (0.02 / 0.19) / std::sqrt(0.0031 / 0.0199);
    expect_close(w, {0.89 - 0.1 * (0.1 * 0.89 + adam)}, allowed, "w of step 2");
  }
}

TEST_F(AdamW, AgreesWithPlainLoopOverThreeSteps) {
  for (const DType type : kTypes) {
    for (const int size : kSizes) {
      SCOPED_TRACE(testing::Message() << name_of(type) << ", " << size << " weights");
      const DType wide = accum_type(type);
      const AnyView value = tensors_.random("w", type, size);
      const AnyView master = type == wide ? value : tensors_.random("master", wide, size);
      const AnyView m = vector(wide, std::vector<double>(static_cast<std::size_t>(size)));
      const AnyView v = tensors_.copy(m);
      std::vector<double> weight = read(master).values, first = read(m).values, second = first;
      for (int step = 1; step <= 3; ++step) {
        const ops::AdamW rule{0.01 * step, 0.9, 0.999, 1e-3, 0.2, 0.3, step};
        const AnyView g = tensors_.random(std::to_string(step), wide, size);
        const std::vector<double> gradient = read(g).values;
        for (std::size_t i = 0; i < weight.size(); ++i) {
          const double slope = rule.clip * gradient[i];
          first[i] = rule.beta1 * first[i] + (1 - rule.beta1) * slope;
          second[i] = rule.beta2 * second[i] + (1 - rule.beta2) * slope * slope;
          const double mean = first[i] / (1 - std::pow(rule.beta1, step));
          const double square = second[i] / (1 - std::pow(rule.beta2, step));
          weight[i] -=
              rule.lr * (rule.weight_decay * weight[i] + mean / (std::sqrt(square) + rule.eps));
        }
        ops::adamw(exec_, rule, g, master, m, v, value);
        expect_close(m, first, tolerance(wide), "m");
        expect_close(v, second, tolerance(wide), "v");
        expect_close(master, weight, tolerance(wide), "master");
        expect_close(value, rounded(type, read(master).values), kExact, "value");
      }
    }
  }
}

/// Updates of 1e-3 vanish beside a bf16 weight of 1, but add up in its master.
TEST_F(AdamW, SmallUpdatesAddUpInTheMaster) {
  const AnyView value = vector(DType::bf16, {1}), master = vector(DType::fp32, {1});
  const AnyView m = vector(DType::fp32, {0}), v = vector(DType::fp32, {0});
  const AnyView g = vector(DType::fp32, {2});
  for (int step = 1; step <= 10; ++step) {
    ops::adamw(exec_, {1e-3, 0.9, 0.99, 1e-8, 0, 1, step}, g, master, m, v, value);
    if (step == 1) expect_close(value, {1}, kExact, "value after one step");
  }
  expect_close(master, {0.99}, {1e-6, 1e-6}, "master");
  expect_close(value, rounded(DType::bf16, {0.99}), kExact, "value after ten steps");
}

/// A factor of 0.999 is less than half a unit of bf16 away from 1: rounded to the nearest, a second
/// moment would stay where it is.
TEST_F(AdamW, MomentsInBf16ForgetAsFastAsTheyShould) {
  constexpr std::size_t kSize = 4096;
  const auto filled = [&](DType type, double value) {
    return vector(type, std::vector<double>(kSize, value));
  };
  const AnyView g = filled(DType::fp32, 0), master = filled(DType::fp32, 1);
  const AnyView m = filled(DType::bf16, 1), v = filled(DType::bf16, 1);
  const AnyView value = filled(DType::bf16, 1);
  for (int step = 1; step <= 1000; ++step) {
    const ops::ChanceRounding rounding{static_cast<std::uint64_t>(step), 0, kSize, 0, 0};
    ops::adamw(exec_, {0, 0.999, 0.999, 1e-8, 0, 1, step}, g, master, m, v, value, rounding);
  }
  for (const AnyView& moment : {m, v}) {
    double mean = 0;
    for (const double kept : read(moment).values) mean += kept / kSize;
    EXPECT_NEAR(mean, std::pow(0.999, 1000), 2e-3);
  }
}

/// Up or down by the number of an element in the whole tensor, wherever it is held.
TEST_F(AdamW, MomentsInBf16DependOnTheElementAlone) {
  constexpr std::int64_t kRows = 6, kColumns = 8;
  struct State {
    AnyView g, master, m, v, value;
    AnyView* begin() { return &g; }
    AnyView* end() { return &value + 1; }
  };
  const auto start = [&] {
    const auto draw = [&](const char* name, DType type) {
      const AnyView drawn = tensors_.random(name, DType::fp32, kRows * kColumns);
      const AnyView typed = tensors_.poisoned(type, kRows * kColumns);
      std::vector<double> values = read(drawn).values;
      for (double& each : values) each = std::abs(each);
      from_doubles(exec_, values, typed);
      return typed;
    };
    return State{draw("g", DType::fp32), draw("master", DType::fp32), draw("m", DType::bf16),
                 draw("v", DType::bf16), draw("value", DType::bf16)};
  };
  const ops::AdamW rule{1e-3, 0.9, 0.99, 1e-8, 0, 1, 1};
  State whole = start(), shards = start(), exact = start();
  ops::adamw(exec_, rule, whole.g, whole.master, whole.m, whole.v, whole.value,
             {7, 0, kRows * kColumns, 0, 0});
  // The left and the right half of a matrix, each in two pieces.
  for (const std::int64_t column : {std::int64_t{0}, kColumns / 2}) {
    for (const auto& [first, count] : {std::pair<std::int64_t, std::int64_t>{0, 10}, {10, 14}}) {
      State piece = start();
      for (AnyView* view = piece.begin(); view != piece.end(); ++view) {
        std::vector<double> of_shard;
        const std::vector<double> all = read(*(shards.begin() + (view - piece.begin()))).values;
        for (std::int64_t row = 0; row < kRows; ++row) {
          const auto from = all.begin() + row * kColumns + column;
          of_shard.insert(of_shard.end(), from, from + kColumns / 2);
        }
        *view = vector(view->type(), {of_shard.begin() + first, of_shard.begin() + first + count});
      }
      ops::adamw(exec_, rule, piece.g, piece.master, piece.m, piece.v, piece.value,
                 {7, column, kColumns / 2, kColumns, first});
      const std::vector<double> m = read(piece.m).values, v = read(piece.v).values;
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t at = first + i, row = at / (kColumns / 2);
        const auto index = static_cast<std::size_t>(row * kColumns + column + at % (kColumns / 2));
        EXPECT_EQ(m[static_cast<std::size_t>(i)], read(whole.m).values[index]) << index;
        EXPECT_EQ(v[static_cast<std::size_t>(i)], read(whole.v).values[index]) << index;
      }
    }
  }
  // Neighbours of what fp32 keeps, not all of them the nearest.
  exact.m = vector(DType::fp32, read(exact.m).values);
  exact.v = vector(DType::fp32, read(exact.v).values);
  ops::adamw(exec_, rule, exact.g, exact.master, exact.m, exact.v, exact.value);
  int up = 0, down = 0;
  const std::vector<double> kept = read(whole.v).values, wanted = read(exact.v).values;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    EXPECT_NEAR(kept[i], wanted[i], wanted[i] / 128);
    (kept[i] > wanted[i] ? up : down) += 1;
  }
  EXPECT_GT(std::min(up, down), 8);
  expect_close(whole.master, read(exact.master).values, kExact, "master");
}

class SumSquares : public KernelTest {};

TEST_F(SumSquares, AgreesWithPlainLoopAtTheBordersOfBlocks) {
  constexpr std::int64_t kBlock = ops::kSquaresBlock;
  for (const DType type : kAccumTypes) {
    for (const std::int64_t size :
         {std::int64_t{0}, std::int64_t{1}, std::int64_t{7}, std::int64_t{8}, std::int64_t{9},
          std::int64_t{63}, std::int64_t{64}, std::int64_t{129}, kBlock - 1, kBlock, kBlock + 1,
          2 * kBlock + 5}) {
      SCOPED_TRACE(testing::Message() << name_of(type) << ", " << size << " elements");
      const AnyView x = tensors_.random("x", type, size);
      const std::vector<double> values = read(x).values;
      std::vector<double> expected(static_cast<std::size_t>(ops::squares_blocks(size)));
      for (std::size_t i = 0; i < values.size(); ++i) {
        expected[i / static_cast<std::size_t>(kBlock)] += values[i] * values[i];
      }
      const View1<double> partial = doubles(ops::squares_blocks(size));
      ops::sum_squares(exec_, x, partial);
      // Sums are taken in double whatever the type.
      EXPECT_TRUE(close(to_host(exec_, partial), expected, {1e-12, 1e-12}));
    }
  }
}

}  // namespace
}  // namespace konclave
