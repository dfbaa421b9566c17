#pragma once

#include <cstdint>

/// What attention does to rows between its products. Elements of 16 bits are the bits of bf16.
namespace konclave::tiles {

/// The largest score of a row, and the sum of exp(score - largest).
struct RowSums {
  float largest = 0, sum = 0;
};

/// Scores of some queries of one head with some keys of their sequence, what dO V^T has in their
/// place, and where their gradients go. Each row sees a number of leading keys of the sequence.
struct GradientRows {
  const float *scores = nullptr, *products = nullptr;  ///< (rows, stride), not yet scaled
  std::int64_t stride = 0;
  float scale = 1;
  int rows = 0;
  int first_key = 0, keys = 0;               ///< keys of the sequence; as many as columns, 32 n
  const int* seen = nullptr;                 ///< (rows), keys of the sequence
  const float* log_sums = nullptr;           ///< (rows), of exp(score)
  const float* deltas = nullptr;             ///< (rows), rowsum(dO O)
  std::uint16_t *p = nullptr, *d = nullptr;  ///< right factors, their inner extent are the rows
  std::int64_t panel_stride = 0;             ///< of p and d
  std::uint16_t* d_rows = nullptr;           ///< d once more, row-major
  std::int64_t d_stride = 0;
};

/// Compiled for CPUs that have products of bf16, whichever they are.
struct AttentionKernels {
  /// p[j] = exp(scale scores[j] - largest) for j < seen, 0 from there to `columns` = 32 n.
  RowSums (*softmax)(const float* scores, float scale, int seen, std::int64_t columns,
                     std::uint16_t* p);
  /// p = exp(scale score - log_sum) and d = p (product - delta), 0 where a row does not see a key,
  /// and in rows up to 32 n.
  void (*softmax_gradient)(const GradientRows& rows);
  /// sum over j of a[j] b[j]
  float (*dot)(const std::uint16_t* a, const std::uint16_t* b, int size);
  /// to[j] = factor from[j]; `from` can be read up to 32 n.
  void (*narrow)(const float* from, float factor, int size, std::uint16_t* to);
};
const AttentionKernels& attention_kernels();

}  // namespace konclave::tiles
