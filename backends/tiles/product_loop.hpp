#pragma once

#include "tiles/kernels.hpp"
#include "tiles/vectors.hpp"

#include <cstdint>
#include <type_traits>

/// The kernels, for CPUs of any kind. An `Engine` has the functions that DotProducts has:
///   sums(block, rows, panel, next_panel, to)  the first `rows` of 32 x 32 sums, row-major
///   passes(rows)                              how often that goes through the panel
///   narrow(low, high, result)                 two vectors of sums, rounded to bf16
///   stream(values, to), finish_streams()      stores past the caches
/// See vectors.hpp for what may be written here.
namespace konclave::tiles {
namespace {

/// Brings the panel behind the one in use into the second cache, some lines at each step of each
/// of the passes through that one.
class NextPanel {
 public:
  NextPanel(const BlockProduct& product, std::int64_t panel, std::int64_t passes)
      : next_(product.right.data + (panel + 1) * product.right.stride),
        end_(next_ + product.steps * kBlockSize) {
    if (end_ > product.right.end) end_ = product.right.end;
    lines_ = (kBlockSize / kLine + passes - 1) / passes;
  }
  void fetch_some() {
    for (std::int64_t i = 0; i < lines_ && next_ < end_; ++i, next_ += kLine) {
      __builtin_prefetch(next_, 0, 2);
    }
  }

 private:
  static constexpr std::int64_t kLine = 32;  // elements
  const std::uint16_t *next_, *end_;
  std::int64_t lines_;
};

/// Rows of c that a block has.
inline int rows_of(const BlockProduct& product, std::int64_t block) {
  const std::int64_t rows = product.rows - block * kBlock;
  return rows < kBlock ? static_cast<int>(rows) : kBlock;
}

/// 32 rows of a left factor: element (i,p) of step s is data[s*step_stride + i*row_stride + p].
struct LeftBlock {
  const std::uint16_t* data;
  std::int64_t row_stride, step_stride, steps;

  LeftBlock(const BlockProduct& product, std::int64_t block) : steps(product.steps) {
    const bool copied = block >= product.first_copied;
    const LeftBlocks& blocks = copied ? product.copied : product.in_place;
    data = blocks.data + (block - (copied ? product.first_copied : 0)) * blocks.block_stride;
    row_stride = blocks.row_stride;
    step_stride = blocks.step_stride;
  }
};

template <Store kStore>
inline constexpr bool kRounds = kStore == Store::bf16 || kStore == Store::bf16_added;
template <Store kStore>
inline constexpr bool kAdds = kStore == Store::bf16_added || kStore == Store::fp32_added;

inline void load_wide(const float* from, Floats& values) { load(from, values); }
inline void load_wide(const std::uint16_t* from, Floats& values) { widen(from, values); }

/// 16 sums, with what is in their place in c where the store adds.
template <Store kStore, typename Element>
void load_sums(const float* sums, const Element* c, Floats& values) {
  load(sums, values);
  if constexpr (kAdds<kStore>) {
    Floats old;
    load_wide(c, old);
    values += old;
  }
}

/// 32 sums to a row of c.
template <Store kStore, typename Engine, typename Element>
void put(Engine& engine, const float* sums, Element* c) {
  Floats low, high;
  load_sums<kStore>(sums, c, low);
  load_sums<kStore>(sums + 16, c + 16, high);
  if constexpr (kRounds<kStore>) {
    Halves rounded;
    engine.narrow(low, high, rounded);
    store(rounded, c);
  } else if constexpr (kStore == Store::fp32_streamed) {
    engine.stream(low, c);
    engine.stream(high, c + 16);
  } else {
    store(low, c);
    store(high, c + 16);
  }
}

/// The same for the first `columns` of 32.
template <Store kStore, typename Engine, typename Element>
void put_some(Engine& engine, const float* sums, Element* c, int columns) {
  alignas(64) Element row[kBlock] = {};
  for (int j = 0; j < columns; ++j) row[j] = c[j];
  put<kStore>(engine, sums, row);
  for (int j = 0; j < columns; ++j) c[j] = row[j];
}

template <Store kStore, typename Engine, typename Element>
void put_block(Engine& engine, const float* sums, int rows, int columns, Element* c,
               std::int64_t stride) {
  if (columns == kBlock) {
    for (int i = 0; i < rows; ++i) put<kStore>(engine, sums + i * kBlock, c + i * stride);
  } else {
    constexpr Store kCached = kStore == Store::fp32_streamed ? Store::fp32 : kStore;
    for (int i = 0; i < rows; ++i) {
      put_some<kCached>(engine, sums + i * kBlock, c + i * stride, columns);
    }
  }
}

/// How often an engine goes through each panel.
template <typename Engine> std::int64_t passes_of(const BlockProduct& product) {
  std::int64_t passes = 0;
  for (std::int64_t b = product.begin_block; b < product.end_block; ++b) {
    passes += Engine::passes(rows_of(product, b));
  }
  return passes;
}

template <typename Engine, Store kStore> void multiply(const BlockProduct& product) {
  using Element = std::conditional_t<kRounds<kStore>, std::uint16_t, float>;
  alignas(64) float sums[kBlockSize];
  Engine engine;
  const std::int64_t passes = passes_of<Engine>(product);
  for (std::int64_t p = product.begin_panel; p < product.end_panel; ++p) {
    const std::uint16_t* const panel = product.right.data + p * product.right.stride;
    const std::int64_t left_columns = product.columns - p * kBlock;
    const int columns = left_columns < kBlock ? static_cast<int>(left_columns) : kBlock;
    NextPanel next(product, p, passes);
    for (std::int64_t b = product.begin_block; b < product.end_block; ++b) {
      const int rows = rows_of(product, b);
      engine.sums(LeftBlock(product, b), rows, panel, next, sums);
      Element* const c = static_cast<Element*>(product.c) + b * kBlock * product.stride;
      put_block<kStore>(engine, sums, rows, columns, c + p * kBlock, product.stride);
    }
  }
  if constexpr (kStore == Store::fp32_streamed) engine.finish_streams();
}

/// Rows 2p and 2p+1 become row p of two tiles.
inline void right_of_rows(const std::uint16_t* from, std::int64_t stride, std::uint16_t* to) {
#pragma GCC unroll 4
  for (int i = 0; i < kBlock; i += 2) {
    Halves first, second, low, high;
    load(from + i * stride, first);
    load(from + (i + 1) * stride, second);
    interleave(first, second, low, high);
    store(low, to + i * kPairs);
    store(high, to + i * kPairs + kBlockSize / 2);
  }
}

/// Row n becomes column n; its elements are pairs already.
inline void right_of_columns(const std::uint16_t* from, std::int64_t stride, std::uint16_t* to) {
  for (int half = 0; half < kBlock; half += kPairs) {
    Words rows[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) load(from + (half + i) * stride, rows[i]);
    transpose(rows);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) store(rows[i], to + (half + i) * kBlock);
  }
}

/// to[j*32 + i] = from[i*stride + j]
inline void left_of_columns(const std::uint16_t* from, std::int64_t stride, std::uint16_t* to) {
  alignas(64) std::uint16_t pairs[kBlockSize];
  right_of_rows(from, stride, pairs);
  right_of_columns(pairs, kBlock, to);
}

template <typename Engine> constexpr Kernels kernels_by() {
  return {{&multiply<Engine, Store::bf16>, &multiply<Engine, Store::bf16_added>,
           &multiply<Engine, Store::fp32>, &multiply<Engine, Store::fp32_added>,
           &multiply<Engine, Store::fp32_streamed>},
          &right_of_rows,
          &right_of_columns,
          &left_of_columns};
}

}  // namespace
}  // namespace konclave::tiles
