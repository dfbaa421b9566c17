#include "ops/blocked_attention.hpp"
#include "tiles/attention_work.hpp"
#include "tiles/packing.hpp"

#include <cmath>
#include <limits>

namespace konclave::tiles {

namespace {

/// One key and value head of one sequence, with the heads of the queries that read it.
class ForwardHead {
 public:
  ForwardHead(const AttentionParts& parts, const AttentionShape& shape,
              const AttentionForward& call, const ops::AttentionSequence& sequence, int kv_head,
              Workspace workspace)
      : parts_(parts),
        shape_(shape),
        call_(call),
        keys_(right_of_columns(
            parts.products,
            head_rows(call.k, kv_head, shape.dk, sequence.k_begin, sequence.visible()), workspace)),
        values_(right_of_rows(
            parts.products,
            head_rows(call.v, kv_head, shape.dv, sequence.k_begin, sequence.visible()), workspace)),
        queries_(take_blocks(workspace, kBlockRows, shape.dk)),
        scores_(take_floats(workspace, kBlockRows, sequence.visible())),
        p_(take_halves(workspace, kBlockRows, sequence.visible())),
        sums_(take_floats(workspace, kBlockRows, shape.dv)) {}

  /// Floats of a workspace that it takes.
  static std::int64_t size(const AttentionShape& shape, std::int64_t keys) {
    return size_of_blocks(keys, shape.dk) + size_of_blocks(keys, shape.dv) +
           size_of_blocks(kBlockRows, shape.dk) + size_of_floats(kBlockRows, keys) +
           size_of_halves(kBlockRows, keys) + size_of_floats(kBlockRows, shape.dv);
  }

  void run(int head, const ops::AttentionBlock& block, const SeenKeys& seen) const {
    const int rows = block.q_count;
    const HeadRows q = head_rows(call_.q, head, shape_.dk, block.q_begin, rows);
    multiply(parts_.products, Store::fp32, left_of_rows(q, queries_), blocks_of(shape_.dk), keys_,
             {scores_.data, rows, block.visible, scores_.stride});
    float shares[kBlockRows];
    const auto lse = call_.lse.as2<float>();
    for (int i = 0; i < rows; ++i) {
      const RowSums sums =
          parts_.rows.softmax(scores_.row(i), static_cast<float>(shape_.scale), seen.of_row[i],
                              blocks_of(block.visible) * kBlock, p_.row(i));
      const bool none = seen.of_row[i] == 0;
      shares[i] = none ? 0 : 1 / sums.sum;
      lse(block.q_begin + i, head) =
          none ? -std::numeric_limits<float>::infinity() : sums.largest + std::log(sums.sum);
    }
    multiply(parts_.products, Store::fp32,
             {LeftBlocks::row_major(p_.data, p_.stride), {}, blocks_of(rows)},
             blocks_of(block.visible), values_, {sums_.data, rows, shape_.dv, sums_.stride});
    const Rows<std::uint16_t> o = head_rows(call_.o, head, shape_.dv, block.q_begin, rows);
    for (int i = 0; i < rows; ++i) {
      parts_.rows.narrow(sums_.row(i), shares[i], shape_.dv, o.row(i));
    }
  }

  void finish() const {}

 private:
  const AttentionParts& parts_;
  const AttentionShape& shape_;
  const AttentionForward& call_;
  RightPanels keys_, values_;
  std::uint16_t* queries_;
  Rows<float> scores_;
  Rows<std::uint16_t> p_;
  Rows<float> sums_;
};

}  // namespace

std::int64_t forward_size(const AttentionShape& shape, std::int64_t keys) {
  return ForwardHead::size(shape, keys);
}

void attention_forward(const ExecSpace& exec, const AttentionParts& parts,
                       const AttentionShape& shape, const AttentionForward& call) {
  ops::require_attention_fits(shape, call.q, call.k, call.v, call.o, call.lse);
  for_each_head<ForwardHead>("konclave::tiles::attention_forward", exec, parts, shape, call);
}

}  // namespace konclave::tiles
