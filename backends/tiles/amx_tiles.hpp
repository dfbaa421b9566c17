#pragma once

#include "tiles/tile_config.hpp"
#include "tiles/vectors.hpp"

#include <cstdint>

namespace konclave::tiles {
namespace {

/// The CPU's tiles, configured while this object lives. Other libraries release the configuration
/// when they have used it, so every kernel has an object of its own. Instructions are written out:
/// the compilers' functions for them take the number of a tile as text only.
class AmxTiles {
 public:
  AmxTiles() { asm volatile("ldtilecfg %0" : : "m"(kLargestTiles) : "memory"); }
  ~AmxTiles() { asm volatile("tilerelease" : : : "memory"); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

  /// tile = 0
  template <int kTile> void zero() { asm volatile("tilezero %%tmm%c0" : : "n"(kTile)); }
  /// 16 rows of 64 bytes, `stride` bytes from one to the next.
  template <int kTile> void load(const void* from, std::int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "n"(kTile));
  }
  template <int kTile> void store(void* to, std::int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "n"(kTile) : "memory");
  }
  /// sums[i,j] += sum over pairs p of left[i,p] . right[p,j], in fp32.
  template <int kSums, int kLeft, int kRight> void multiply_add() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "n"(kSums), "n"(kLeft), "n"(kRight));
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
};

}  // namespace
}  // namespace konclave::tiles
