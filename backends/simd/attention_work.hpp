#pragma once

#include "ops/attention.hpp"
#include "ops/attention_heads.hpp"
#include "ops/attention_rows.hpp"
#include "ops/matrix.hpp"
#include "simd/panels.hpp"

#include <cstdint>
#include <vector>

/// Attention by blocks of query rows of one head, which are multiplied with all the keys that they
/// see; the formulas are those of ops/blocked_attention.hpp. Keys and values are brought into
/// panels once for all heads that read them.
namespace konclave::simd {

using Workspace = ops::Workspace<float>;

/// Bytes of scratch memory for all threads, for either direction.
std::size_t attention_workspace(const AttentionShape& shape, std::int64_t longest);

template <typename X>
void attention_forward(const ExecSpace& exec, const AttentionShape& shape,
                       const AttentionForward& call);
template <typename X>
void attention_backward(const ExecSpace& exec, const AttentionShape& shape,
                        const AttentionBackward& call);

/// Rows of head `head`, `size` wide, from row `first` on.
template <typename X>
Block<const X> head_rows(const AnyIn& all, int head, int size, std::int64_t first) {
  const ops::Matrix<const X> matrix = ops::matrix_of<X>(all);
  return {matrix.data + first * matrix.stride + std::int64_t{head} * size, matrix.stride};
}
template <typename X>
Block<X> head_rows(const AnyView& all, int head, int size, std::int64_t first) {
  const ops::Matrix<X> matrix = ops::matrix_of<X>(all);
  return {matrix.data + first * matrix.stride + std::int64_t{head} * size, matrix.stride};
}

/// The panels of the transpose of rows (count, size): a factor (size, count).
template <typename X>
void pack_transposed(const Panels& panels, Block<const X> from, float* packed) {
  for (std::int64_t p = 0; p < panels.count(); ++p) {
    const int width = panels.width(p);
    copy_transposed<X>({from.row(panels.first(p)), from.stride}, panels.columns(p), panels.k(),
                       {packed + panels.offset(p), width}, width);
  }
}

/// The panels of rows (count, size) as they are: a factor (count, size).
template <typename X> void pack(const Panels& panels, Block<const X> from, float* packed) {
  for (std::int64_t p = 0; p < panels.count(); ++p) {
    const int width = panels.width(p);
    copy<X>({from.data + panels.first(p), from.stride}, panels.k(), panels.columns(p),
            {packed + panels.offset(p), width}, width);
  }
}

/// Floats of a row of keys, up to a full panel of any kernel.
inline std::int64_t padded(std::int64_t size) {
  return (size + kMostColumns - 1) / kMostColumns * kMostColumns;
}

}  // namespace konclave::simd
