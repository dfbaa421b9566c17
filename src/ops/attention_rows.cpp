#include "ops/attention_rows.hpp"

#include "base/error.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>

namespace konclave::ops {

namespace {

AttentionSequence plan_sequence(int q_begin, std::span<const int> q_positions, int k_begin,
                                std::span<const int> k_positions, int block_rows) {
  require(std::is_sorted(q_positions.begin(), q_positions.end()) &&
              std::is_sorted(k_positions.begin(), k_positions.end()),
          "attention: positions must ascend within a sequence");
  AttentionSequence sequence{k_begin, static_cast<int>(k_positions.size()), {}};
  const int rows = static_cast<int>(q_positions.size());
  for (int first = 0; first < rows; first += block_rows) {
    const int count = std::min(block_rows, rows - first);
    const auto unseen =
        std::upper_bound(k_positions.begin(), k_positions.end(), q_positions[first + count - 1]);
    const auto visible = unseen - k_positions.begin();
    sequence.blocks.push_back({q_begin + first, count, static_cast<int>(visible)});
  }
  return sequence;
}

}  // namespace

std::vector<AttentionSequence> plan_attention(std::span<const int> q_offsets,
                                              std::span<const int> k_offsets,
                                              std::span<const int> q_positions,
                                              std::span<const int> k_positions, int block_rows) {
  require(q_offsets.size() == k_offsets.size() && !q_offsets.empty(),
          "attention: queries and keys have different numbers of sequences");
  require(q_offsets.back() <= static_cast<int>(q_positions.size()) &&
              k_offsets.back() <= static_cast<int>(k_positions.size()),
          "attention: the sequences have more rows than there are positions");
  std::vector<AttentionSequence> sequences;
  for (std::size_t i = 0; i + 1 < q_offsets.size(); ++i) {
    const int q_begin = q_offsets[i], k_begin = k_offsets[i];
    sequences.push_back(
        plan_sequence(q_begin, q_positions.subspan(q_begin, q_offsets[i + 1] - q_begin), k_begin,
                      k_positions.subspan(k_begin, k_offsets[i + 1] - k_begin), block_rows));
  }
  return sequences;
}

std::vector<AttentionSequence> plan_attention(const ExecSpace& exec, const AttentionRows& rows,
                                              int block_rows) {
  return plan_attention(to_host(exec, rows.q_offsets), to_host(exec, rows.k_offsets),
                        to_host(exec, rows.q_positions), to_host(exec, rows.k_positions),
                        block_rows);
}

int visible_keys(int position, const int* k_positions, int keys) {
  return static_cast<int>(std::upper_bound(k_positions, k_positions + keys, position) -
                          k_positions);
}

}  // namespace konclave::ops
