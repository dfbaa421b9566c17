#pragma once

#include "simd/vectors.hpp"

#include <algorithm>
#include <cstdint>

/// Moving blocks of matrices into the order that tiles read them in, and results out of it.
namespace konclave::simd {

/// A block of a row-major matrix. Borrows.
template <typename X> struct Block {
  X* data = nullptr;
  std::int64_t stride = 0;

  X* row(std::int64_t i) const { return data + i * stride; }
};

/// to[i,j] = from[i,j] in fp32, 0 for the columns from `columns` to `width`.
template <typename X>
void copy(Block<const X> from, std::int64_t rows, int columns, Block<float> to, int width) {
  for (std::int64_t i = 0; i < rows; ++i) {
    const X* const source = from.row(i);
    float* const target = to.row(i);
    int j = 0;
    for (; j + kFloats <= columns; j += kFloats) store(load(source + j), target + j);
    for (; j < columns; ++j) target[j] = static_cast<float>(source[j]);
    for (; j < width; ++j) target[j] = 0;
  }
}

/// to[j,i] = from[i,j] in fp32, 0 for the columns of `to` from `rows` to `width`.
template <typename X>
void copy_transposed(Block<const X> from, int rows, std::int64_t columns, Block<float> to,
                     int width) {
  int i = 0;
  for (; i + kFloats <= rows; i += kFloats) {
    std::int64_t j = 0;
    for (; j + kFloats <= columns; j += kFloats) {
      Floats block[kFloats];
      for (int l = 0; l < kFloats; ++l) block[l] = load(from.row(i + l) + j);
      transpose(block);
      for (int l = 0; l < kFloats; ++l) store(block[l], to.row(j + l) + i);
    }
    for (; j < columns; ++j) {
      for (int l = 0; l < kFloats; ++l) to.row(j)[i + l] = static_cast<float>(from.row(i + l)[j]);
    }
  }
  for (std::int64_t j = 0; j < columns; ++j) {
    for (int l = i; l < rows; ++l) to.row(j)[l] = static_cast<float>(from.row(l)[j]);
    std::fill(to.row(j) + std::max(i, rows), to.row(j) + width, 0.0F);
  }
}

/// What becomes of a block of sums: to = alpha from, added to what is there when `accumulate`.
struct Finish {
  float alpha = 1;
  bool accumulate = false;
  bool streams = false;  ///< past the caches, where rows of `to` are aligned and nothing is added

  template <typename R> void operator()(Floats sums, R* to) const {
    const Floats scaled = alpha * sums;
    if (accumulate) {
      store(load(to) + scaled, to);
    } else if (streams && reinterpret_cast<std::uintptr_t>(to) % sizeof(Floats) == 0) {
      stream(scaled, to);
    } else {
      store(scaled, to);
    }
  }
  template <typename R> void operator()(float sum, R* to) const {
    const float scaled = alpha * sum;
    *to = R(accumulate ? static_cast<float>(*to) + scaled : scaled);
  }
};

/// to[i,j] from from[i,j].
template <typename R>
void finish(Block<const float> from, int rows, int columns, const Finish& finish, Block<R> to) {
  for (int i = 0; i < rows; ++i) {
    const float* const source = from.row(i);
    R* const target = to.row(i);
    int j = 0;
    for (; j + kFloats <= columns; j += kFloats) finish(load(source + j), target + j);
    for (; j < columns; ++j) finish(source[j], target + j);
  }
}

/// to[j,i] from from[i,j].
template <typename R>
void finish_transposed(Block<const float> from, int rows, int columns, const Finish& finish,
                       Block<R> to) {
  int i = 0;
  for (; i + kFloats <= rows; i += kFloats) {
    int j = 0;
    for (; j + kFloats <= columns; j += kFloats) {
      Floats block[kFloats];
      for (int l = 0; l < kFloats; ++l) block[l] = load(from.row(i + l) + j);
      transpose(block);
      for (int l = 0; l < kFloats; ++l) finish(block[l], to.row(j + l) + i);
    }
    for (; j < columns; ++j) {
      for (int l = 0; l < kFloats; ++l) finish(from.row(i + l)[j], to.row(j) + i + l);
    }
  }
  for (; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) finish(from.row(i)[j], to.row(j) + i);
  }
}

}  // namespace konclave::simd
