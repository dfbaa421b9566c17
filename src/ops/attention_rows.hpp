#pragma once

#include "ops/attention.hpp"

#include <span>
#include <vector>

namespace konclave::ops {

/// Query rows of one sequence that are worked on together.
struct AttentionBlock {
  int q_begin = 0, q_count = 0;
  int visible = 0;  ///< leading keys of the sequence that the last row sees; no row sees more
};

/// One sequence: its key rows, and its query rows in blocks.
struct AttentionSequence {
  int k_begin = 0, k_count = 0;
  std::vector<AttentionBlock> blocks;

  /// Leading keys that any query sees.
  int visible() const { return blocks.empty() ? 0 : blocks.back().visible; }
};

/// Cuts each sequence into blocks of at most `block_rows` query rows. As positions ascend within
/// a sequence, what a query sees is a number of leading keys, and later queries see no fewer.
/// Arguments as in AttentionRows, on the host. Throws when positions do not ascend.
std::vector<AttentionSequence> plan_attention(std::span<const int> q_offsets,
                                              std::span<const int> k_offsets,
                                              std::span<const int> q_positions,
                                              std::span<const int> k_positions, int block_rows);
/// The same for rows on the device. Waits for `exec`.
std::vector<AttentionSequence> plan_attention(const ExecSpace& exec, const AttentionRows& rows,
                                              int block_rows);

/// How many of `keys` leading keys a query at `position` sees.
int visible_keys(int position, const int* k_positions, int keys);

}  // namespace konclave::ops
