#include "ops/blocked_attention.hpp"
#include "tiles/attention_work.hpp"
#include "tiles/packing.hpp"

#include <algorithm>
#include <cstring>

namespace konclave::tiles {

namespace {

/// Keys whose scores are held at a time, so that the first caches hold them.
constexpr int kChunkKeys = 128;

/// One key and value head of one sequence, with the heads of the queries that read it. What is
/// summed over queries is held transposed: P and D are right factors then, whose order takes two
/// rows at a time, and not left ones, whose order would turn them.
class BackwardHead {
 public:
  BackwardHead(const AttentionParts& parts, const AttentionShape& shape,
               const AttentionBackward& call, const ops::AttentionSequence& sequence, int kv_head,
               Workspace workspace)
      : parts_(parts),
        shape_(shape),
        call_(call),
        sequence_(sequence),
        kv_head_(kv_head),
        scale_(static_cast<float>(shape.scale)),
        k_transposed_(right_of_columns(parts.products, keys(call.k, shape.dk), workspace)),
        v_transposed_(right_of_columns(parts.products, keys(call.v, shape.dv), workspace)),
        k_(right_of_rows(parts.products, keys(call.k, shape.dk), workspace)),
        q_blocks_(take_blocks(workspace, kBlockRows, shape.dk)),
        q_turned_(take_blocks(workspace, kBlockRows, shape.dk)),
        do_blocks_(take_blocks(workspace, kBlockRows, shape.dv)),
        do_turned_(take_blocks(workspace, kBlockRows, shape.dv)),
        p_(take_blocks(workspace, kBlockRows, kChunkKeys)),
        d_(take_blocks(workspace, kBlockRows, kChunkKeys)),
        d_rows_(take_halves(workspace, kBlockRows, kChunkKeys)),
        scores_(take_floats(workspace, kBlockRows, kChunkKeys)),
        products_(take_floats(workspace, kBlockRows, kChunkKeys)),
        dq_(take_floats(workspace, kBlockRows, shape.dk)),
        dk_(take_floats(workspace, shape.dk, sequence.k_count)),
        dv_(take_floats(workspace, shape.dv, sequence.k_count)) {
    std::fill(dk_.data, dk_.row(dk_.rows), 0.0F);
    std::fill(dv_.data, dv_.row(dv_.rows), 0.0F);
  }

  /// Floats of a workspace that it takes.
  static std::int64_t size(const AttentionShape& shape, std::int64_t keys) {
    return 2 * size_of_blocks(keys, shape.dk) + size_of_blocks(keys, shape.dv) +
           2 * size_of_blocks(kBlockRows, shape.dk) + 2 * size_of_blocks(kBlockRows, shape.dv) +
           2 * size_of_blocks(kBlockRows, kChunkKeys) + size_of_halves(kBlockRows, kChunkKeys) +
           2 * size_of_floats(kBlockRows, kChunkKeys) + size_of_floats(kBlockRows, shape.dk) +
           size_of_floats(shape.dk, keys) + size_of_floats(shape.dv, keys);
  }

  /// Overwrites dq, adds to dk and dv.
  void run(int head, const ops::AttentionBlock& block, const SeenKeys& seen) const {
    const int rows = block.q_count;
    const HeadRows q = head_rows(call_.q, head, shape_.dk, block.q_begin, rows),
                   d_o = head_rows(call_.d_o, head, shape_.dv, block.q_begin, rows);
    const Factors factors{left_of_rows(q, q_blocks_), left_of_rows(d_o, do_blocks_),
                          left_of_columns(parts_.products, q, q_turned_),
                          left_of_columns(parts_.products, d_o, do_turned_)};
    float log_sums[kBlockRows], deltas[kBlockRows];
    const auto lse = call_.lse.as2<float>();
    const HeadRows o = head_rows(call_.o, head, shape_.dv, block.q_begin, rows);
    for (int i = 0; i < rows; ++i) {
      log_sums[i] = lse(block.q_begin + i, head);
      deltas[i] = parts_.rows.dot(o.row(i), d_o.row(i), shape_.dv);
    }
    GradientRows gradient;
    gradient.rows = rows;
    gradient.seen = seen.of_row;
    gradient.log_sums = log_sums;
    gradient.deltas = deltas;
    std::fill(dq_.data, dq_.row(rows), 0.0F);
    for (int first = 0; first < block.visible; first += kChunkKeys) {
      gradient.first_key = first;
      gradient.keys = std::min<int>(kChunkKeys, blocks_of(block.visible - first) * kBlock);
      add_chunk(factors, gradient);
    }
    const Rows<std::uint16_t> dq = head_rows(call_.dq, head, shape_.dk, block.q_begin, rows);
    for (int i = 0; i < rows; ++i) parts_.rows.narrow(dq_.row(i), scale_, shape_.dk, dq.row(i));
  }

  void finish() const {
    store_turned(dk_, scale_,
                 head_rows(call_.dk, kv_head_, shape_.dk, sequence_.k_begin, sequence_.k_count));
    store_turned(dv_, 1,
                 head_rows(call_.dv, kv_head_, shape_.dv, sequence_.k_begin, sequence_.k_count));
  }

 private:
  /// A block of queries in the orders that products want.
  struct Factors {
    LeftRows q, d_o, q_turned, do_turned;
  };

  HeadRows keys(const AnyIn& all, int size) const {
    return head_rows(all, kv_head_, size, sequence_.k_begin, sequence_.visible());
  }

  /// What queries and some of the keys give each other.
  void add_chunk(const Factors& factors, GradientRows gradient) const {
    const Kernels& kernels = parts_.products;
    const std::int64_t rows = gradient.rows, keys = gradient.keys,
                       first = gradient.first_key / kBlock, inner = blocks_of(rows);
    const auto from = [](RightPanels panels, std::int64_t elements) {
      panels.data += elements;
      return panels;
    };
    multiply(kernels, Store::fp32, factors.q, blocks_of(shape_.dk),
             from(k_transposed_, first * k_transposed_.stride),
             {scores_.data, rows, keys, scores_.stride});
    multiply(kernels, Store::fp32, factors.d_o, blocks_of(shape_.dv),
             from(v_transposed_, first * v_transposed_.stride),
             {products_.data, rows, keys, products_.stride});
    gradient.scores = scores_.data;
    gradient.products = products_.data;
    gradient.stride = scores_.stride;
    gradient.scale = scale_;
    gradient.p = p_;
    gradient.d = d_;
    gradient.panel_stride = inner * kBlockSize;
    gradient.d_rows = d_rows_.data;
    gradient.d_stride = d_rows_.stride;
    parts_.rows.softmax_gradient(gradient);
    const auto panels = [&](const std::uint16_t* data) {
      const std::int64_t stride = inner * kBlockSize;
      return RightPanels{data, stride, data + keys / kBlock * stride};
    };
    multiply(kernels, Store::fp32_added, factors.do_turned, inner, panels(p_),
             {dv_.data + gradient.first_key, shape_.dv, keys, dv_.stride});
    multiply(kernels, Store::fp32_added, factors.q_turned, inner, panels(d_),
             {dk_.data + gradient.first_key, shape_.dk, keys, dk_.stride});
    multiply(kernels, Store::fp32_added,
             {LeftBlocks::row_major(d_rows_.data, d_rows_.stride), {}, inner}, keys / kBlock,
             from(k_, first * kBlockSize), {dq_.data, rows, shape_.dk, dq_.stride});
  }

  /// to[i,j] = factor from[j,i], rounded.
  void store_turned(const Rows<float>& from, float factor, const Rows<std::uint16_t>& to) const {
    alignas(64) std::uint16_t rounded[kBlockSize] = {}, turned[kBlockSize];
    for (std::int64_t row = 0; row < to.rows; row += kBlock) {
      for (std::int64_t column = 0; column < to.columns; column += kBlock) {
        const std::int64_t rows = std::min<std::int64_t>(kBlock, to.rows - row),
                           columns = std::min<std::int64_t>(kBlock, to.columns - column);
        for (std::int64_t j = 0; j < columns; ++j) {
          parts_.rows.narrow(from.row(column + j) + row, factor, kBlock, rounded + j * kBlock);
        }
        parts_.products.left_of_columns(rounded, kBlock, turned);
        for (std::int64_t i = 0; i < rows; ++i) {
          std::memcpy(to.row(row + i) + column, turned + i * kBlock,
                      static_cast<std::size_t>(columns) * sizeof(std::uint16_t));
        }
      }
    }
  }

  const AttentionParts& parts_;
  const AttentionShape& shape_;
  const AttentionBackward& call_;
  const ops::AttentionSequence& sequence_;
  int kv_head_;
  float scale_;
  RightPanels k_transposed_, v_transposed_, k_;
  std::uint16_t *q_blocks_, *q_turned_, *do_blocks_, *do_turned_, *p_, *d_;
  Rows<std::uint16_t> d_rows_;
  Rows<float> scores_, products_, dq_, dk_, dv_;
};

}  // namespace

std::int64_t backward_size(const AttentionShape& shape, std::int64_t keys) {
  return BackwardHead::size(shape, keys);
}

void attention_backward(const ExecSpace& exec, const AttentionParts& parts,
                        const AttentionShape& shape, const AttentionBackward& call) {
  ops::require_attention_fits(shape, call.q, call.k, call.v, call.o, call.lse);
  ops::require_attention_fits(shape, call.dq, call.dk, call.dv, call.d_o, call.lse);
  for_each_head<BackwardHead>("konclave::tiles::attention_backward", exec, parts, shape, call);
}

}  // namespace konclave::tiles
