#pragma once

#include <cstdint>

/// Products of bf16 by 32 x 32 blocks of sums, in steps of 32 along the inner extent: four of AMX's
/// tiles, or rows of AVX-512's vectors. Elements are the bits of bf16.
namespace konclave::tiles {

inline constexpr int kBlock = 32;
inline constexpr int kBlockSize = kBlock * kBlock;
inline constexpr int kPairs = kBlock / 2;  ///< of neighbours along the inner extent, in a step

/// A left factor: its element (i,p) of block b and step s is
/// data[b*block_stride + s*step_stride + i*row_stride + p]. That is a row-major matrix, or blocks
/// one behind the other.
struct LeftBlocks {
  const std::uint16_t* data = nullptr;
  std::int64_t row_stride = 0, step_stride = 0, block_stride = 0;

  static LeftBlocks row_major(const std::uint16_t* data, std::int64_t stride) {
    return {data, stride, kBlock, kBlock * stride};
  }
  static LeftBlocks packed(const std::uint16_t* data, std::int64_t steps) {
    return {data, kBlock, kBlockSize, kBlockSize * steps};
  }
};

/// A right factor as panels of 32 columns, each with two tiles for every step: 16 rows of 16
/// columns, of which each has two elements that are neighbours along the inner extent.
struct RightPanels {
  const std::uint16_t* data = nullptr;
  std::int64_t stride = 0;             ///< elements from one panel to the next
  const std::uint16_t* end = nullptr;  ///< of what is worth fetching behind a panel in use
};

/// What becomes of sums.
enum class Store {
  bf16,           ///< rounded
  bf16_added,     ///< added to what is there, and rounded once
  fp32,           ///< through the caches: used soon
  fp32_added,     ///< added to what is there
  fp32_streamed,  ///< past the caches; rows begin at multiples of 64 bytes
};
inline constexpr int kStores = 5;

/// Some blocks of rows times some panels.
struct BlockProduct {
  LeftBlocks in_place;  ///< blocks before `first_copied`
  LeftBlocks copied;    ///< the others; the last may have rows that do not count
  std::int64_t first_copied = 0;
  RightPanels right;
  std::int64_t steps = 0;
  void* c = nullptr;                            ///< row-major, in the type of the store
  std::int64_t stride = 0;                      ///< of c, in elements
  std::int64_t rows = 0, columns = 0;           ///< of c
  std::int64_t begin_block = 0, end_block = 0;  ///< of 32 rows
  std::int64_t begin_panel = 0, end_panel = 0;
};

/// Brings a 32 x 32 block into another order: from[i*stride + j], to contiguous.
using BlockOrder = void (*)(const std::uint16_t* from, std::int64_t stride, std::uint16_t* to);

/// What is compiled for one kind of CPU: see cpu_kernels.hpp for the one at hand.
struct Kernels {
  void (*multiply[kStores])(const BlockProduct& product);
  BlockOrder right_of_rows;     ///< a step of a panel, when the inner extent goes down
  BlockOrder right_of_columns;  ///< a step of a panel, when the inner extent goes across
  BlockOrder left_of_columns;   ///< a block of a left factor, when the inner extent goes down
};
const Kernels& amx_kernels();
const Kernels& dot_kernels();

}  // namespace konclave::tiles
