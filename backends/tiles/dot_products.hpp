#pragma once

#include "tiles/product_loop.hpp"

#include <cstdint>

namespace konclave::tiles {
namespace {

/// The engine on AVX-512's products of pairs of bf16: some rows of sums at a time, which stay in
/// registers from the first step to the last. Instructions are written out, as the compilers'
/// functions for them differ in types.
class DotProducts {
 public:
  static int passes(int rows) { return (rows + kMostRows - 1) / kMostRows; }
  /// Rows that there are, in passes of nearly as many each: few rows do not keep the units busy.
  void sums(const LeftBlock& block, int rows, const std::uint16_t* panel, NextPanel& next_panel,
            float* to) {
    const int count = passes(rows);
    LeftBlock part = block;
    for (int pass = 0; pass < count; ++pass) {
      const int first = rows * pass / count, end = rows * (pass + 1) / count;
      part.data = block.data + first * block.row_stride;
      kPasses[end - first](part, panel, next_panel, to + first * kBlock);
    }
  }

  /// Two vectors of sums, rounded to bf16.
  void narrow(const Floats& low, const Floats& high, Halves& result) {
    asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(result) : "v"(high), "v"(low));
  }
  /// Writes past the caches, a full line at `to`.
  void stream(const Floats& values, float* to) {
    asm volatile("vmovntps %1, %0" : "=m"(*reinterpret_cast<Floats*>(to)) : "v"(values));
  }
  /// Streamed values become visible to other threads.
  void finish_streams() { asm volatile("sfence" : : : "memory"); }

 private:
  /// 24 of 32 registers hold sums.
  static constexpr int kMostRows = 12;
  using Pass = void (*)(const LeftBlock& rows, const std::uint16_t* panel, NextPanel& next_panel,
                        float* to);

  /// sums[j] += left[0] right[j][0] + left[1] right[j][1], in fp32.
  static void multiply_add(const Words& left, const Words& right, Floats& sums) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sums) : "v"(left), "v"(right));
  }

  template <int kRows>
  static void pass(const LeftBlock& rows, const std::uint16_t* panel, NextPanel& next_panel,
                   float* to) {
    Floats low[kRows], high[kRows];
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) low[i] = high[i] = Floats{};
    NextPanel next = next_panel;  // so that the loop keeps it in registers
    const std::uint16_t* left = rows.data;
    for (std::int64_t s = rows.steps; s > 0; --s, left += rows.step_stride, panel += kBlockSize) {
      next.fetch_some();
#pragma GCC unroll 2
      for (int p = 0; p < kBlock; p += 2) {
        Words right_low, right_high;
        load(panel + p * kPairs, right_low);
        load(panel + p * kPairs + kBlockSize / 2, right_high);
#pragma GCC unroll 16
        for (int i = 0; i < kRows; ++i) {
          std::uint32_t pair;
          __builtin_memcpy(&pair, left + i * rows.row_stride + p, sizeof pair);
          const Words pairs = Words{} + pair;
          multiply_add(pairs, right_low, low[i]);
          multiply_add(pairs, right_high, high[i]);
        }
      }
    }
    next_panel = next;
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      store(low[i], to + i * kBlock);
      store(high[i], to + i * kBlock + kPairs);
    }
  }

  static constexpr Pass kPasses[kMostRows + 1] = {
      nullptr,  &pass<1>, &pass<2>, &pass<3>,  &pass<4>,  &pass<5>, &pass<6>,
      &pass<7>, &pass<8>, &pass<9>, &pass<10>, &pass<11>, &pass<12>};
};

}  // namespace
}  // namespace konclave::tiles
