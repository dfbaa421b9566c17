#pragma once

#include "ops/exp_polynomial.hpp"
#include "tiles/attention_kernels.hpp"
#include "tiles/kernels.hpp"
#include "tiles/vectors.hpp"

#include <cstdint>

/// The kernels of attention, for any engine of product_loop.hpp; they use its `narrow`. See
/// vectors.hpp for what may be written here.
namespace konclave::tiles {

using Integers = std::int32_t __attribute__((vector_size(64)));

namespace {

inline constexpr int kLanes = kBlock / 2;  // of Floats

/// `other` in all lanes but the first `count`.
inline void keep(std::int64_t count, float other, Floats& values) {
  const Integers lanes{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  values = lanes < static_cast<std::int32_t>(count) ? values : Floats{} + other;
}

/// Combines all lanes, first those that are 8 apart.
template <typename Combine> float over_lanes(Floats values, const Combine& combine) {
  combine(
      __builtin_shufflevector(values, values, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7),
      values);
  combine(
      __builtin_shufflevector(values, values, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11),
      values);
  combine(
      __builtin_shufflevector(values, values, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13),
      values);
  combine(
      __builtin_shufflevector(values, values, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14),
      values);
  return values[0];
}

inline float sum_of(const Floats& values) {
  return over_lanes(values, [](const Floats& other, Floats& sum) { sum += other; });
}

/// The largest of scale * row[j]; -infinity of none. `row` can be read up to 32 n.
inline float largest_of(const float* row, float scale, int size) {
  constexpr float kNone = -__builtin_inff();
  const auto combine = [](const Floats& other, Floats& largest) {
    largest = other > largest ? other : largest;
  };
  Floats largest[2] = {Floats{} + kNone, Floats{} + kNone};
  for (int j = 0; j < size; j += kBlock) {
    Floats low, high;
    load(row + j, low);
    load(row + j + kLanes, high);
    low *= scale;
    high *= scale;
    if (size - j < kBlock) {
      keep(size - j, kNone, low);
      keep(size - j - kLanes, kNone, high);
    }
    combine(low, largest[0]);
    combine(high, largest[1]);
  }
  combine(largest[1], largest[0]);
  return over_lanes(largest[0], combine);
}

template <typename Engine>
RowSums softmax(const float* scores, float scale, int seen, std::int64_t columns,
                std::uint16_t* p) {
  Engine engine;
  const float largest = largest_of(scores, scale, seen);
  Floats sums[2] = {};
  std::int64_t j = 0;
  for (; j < seen; j += kBlock) {
    Floats low, high;
    load(scores + j, low);
    load(scores + j + kLanes, high);
    exp_polynomial<Words, Integers>(low * scale - largest, low);
    exp_polynomial<Words, Integers>(high * scale - largest, high);
    if (seen - j < kBlock) {
      keep(seen - j, 0, low);
      keep(seen - j - kLanes, 0, high);
    }
    sums[0] += low;
    sums[1] += high;
    Halves rounded;
    engine.narrow(low, high, rounded);
    store(rounded, p + j);
  }
  for (; j < columns; j += kBlock) store(Halves{}, p + j);
  return {largest, sum_of(sums[0] + sums[1])};
}

/// One row of GradientRows.
struct GradientRow {
  const float *scores, *products;
  float log_sum, delta;
  int seen;  ///< of the columns

  GradientRow(const GradientRows& all, int row)
      : scores(all.scores + row * all.stride),
        products(all.products + row * all.stride),
        log_sum(row < all.rows ? all.log_sums[row] : 0),
        delta(row < all.rows ? all.deltas[row] : 0),
        seen(row < all.rows ? all.seen[row] - all.first_key : 0) {}
};

/// p and d of 16 columns from `column` on.
inline void gradient(const GradientRow& row, float scale, int column, Floats& p, Floats& d) {
  const int seen = row.seen - column;
  if (seen <= 0) {
    p = d = Floats{};
    return;
  }
  load(row.scores + column, p);
  load(row.products + column, d);
  exp_polynomial<Words, Integers>(p * scale - row.log_sum, p);
  d = p * (d - row.delta);
  if (seen < kLanes) {
    keep(seen, 0, p);
    keep(seen, 0, d);
  }
}

/// The same for 32 columns, rounded.
template <typename Engine>
void gradient(Engine& engine, const GradientRow& row, float scale, int column, Halves& p,
              Halves& d) {
  Floats p_low, p_high, d_low, d_high;
  gradient(row, scale, column, p_low, d_low);
  gradient(row, scale, column + kLanes, p_high, d_high);
  engine.narrow(p_low, p_high, p);
  engine.narrow(d_low, d_high, d);
}

/// Two rows as a row of pairs, as right_of_rows has them.
inline void store_pair(const Halves& first, const Halves& second, std::uint16_t* to) {
  Halves low, high;
  interleave(first, second, low, high);
  store(low, to);
  store(high, to + kBlockSize / 2);
}

template <typename Engine> void softmax_gradient(const GradientRows& rows) {
  Engine engine;
  for (int i = 0; i < rows.rows || i % kBlock != 0; i += 2) {
    const GradientRow first(rows, i), second(rows, i + 1);
    const std::int64_t place = i / kBlock * kBlockSize + i % kBlock * kPairs;
    std::uint16_t* const d_row = rows.d_rows + i * rows.d_stride;
    for (int j = 0; j < rows.keys; j += kBlock) {
      Halves p[2], d[2];
      gradient(engine, first, rows.scale, j, p[0], d[0]);
      gradient(engine, second, rows.scale, j, p[1], d[1]);
      const std::int64_t panel = j / kBlock * rows.panel_stride + place;
      store_pair(p[0], p[1], rows.p + panel);
      store_pair(d[0], d[1], rows.d + panel);
      store(d[0], d_row + j);
      store(d[1], d_row + rows.d_stride + j);
    }
  }
}

inline float dot(const std::uint16_t* a, const std::uint16_t* b, int size) {
  Floats sums{};
  int j = 0;
  for (; j + kLanes <= size; j += kLanes) {
    Floats left, right;
    widen(a + j, left);
    widen(b + j, right);
    sums += left * right;
  }
  std::uint16_t rest[2][kLanes] = {};
  for (int i = 0; j + i < size; ++i) {
    rest[0][i] = a[j + i];
    rest[1][i] = b[j + i];
  }
  Floats left, right;
  widen(rest[0], left);
  widen(rest[1], right);
  return sum_of(sums + left * right);
}

template <typename Engine>
void narrow(const float* from, float factor, int size, std::uint16_t* to) {
  Engine engine;
  for (int j = 0; j < size; j += kBlock) {
    Floats low, high;
    load(from + j, low);
    load(from + j + kLanes, high);
    Halves rounded;
    engine.narrow(low * factor, high * factor, rounded);
    if (size - j >= kBlock) {
      store(rounded, to + j);
    } else {
      for (int i = 0; j + i < size; ++i) to[j + i] = rounded[i];
    }
  }
}

template <typename Engine> constexpr AttentionKernels attention_kernels_by() {
  return {&softmax<Engine>, &softmax_gradient<Engine>, &dot, &narrow<Engine>};
}

}  // namespace
}  // namespace konclave::tiles
