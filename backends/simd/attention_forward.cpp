#include "ops/blocked_attention.hpp"
#include "ops/fast_math.hpp"
#include "simd/attention_work.hpp"

#include <cmath>
#include <limits>

namespace konclave::simd {

namespace {

/// One key and value head of one sequence, with the heads of the queries that read it.
template <typename X> class ForwardHead {
 public:
  ForwardHead(const AttentionShape& shape, const AttentionForward& call,
              const ops::AttentionSequence& sequence, int kv_head, Workspace workspace)
      : shape_(shape),
        call_(call),
        sequence_(sequence),
        keys_(kernels(), shape.dk, sequence.visible()),
        values_(kernels(), sequence.visible(), shape.dv),
        packed_keys_(workspace.take(1, keys_.size()).data),
        packed_values_(workspace.take(1, values_.size()).data),
        wide_(workspace.take(kBlockRows, shape.dk).data),
        scores_{workspace.take(kBlockRows, padded(sequence.visible())).data,
                padded(sequence.visible())} {
    pack_transposed<X>(keys_, head_rows<X>(call.k, kv_head, shape.dk, sequence.k_begin),
                       packed_keys_);
    pack<X>(values_, head_rows<X>(call.v, kv_head, shape.dv, sequence.k_begin), packed_values_);
  }

  void run(int head, const ops::AttentionBlock& block) const {
    const Block<const X> q = head_rows<X>(call_.q, head, shape_.dk, block.q_begin);
    multiply_panels<float>(kernels(), wide_rows<X>(q, block.q_count, shape_.dk, wide_),
                           block.q_count, shape_.dk, keys_, packed_keys_, block.visible,
                           {static_cast<float>(shape_.scale), false}, scores_);
    const Block<float> lse = head_rows<float>(call_.lse, head, 1, block.q_begin);
    const int* const positions = call_.rows.k_positions.data() + sequence_.k_begin;
    for (int i = 0; i < block.q_count; ++i) {
      const int seen = ops::visible_keys(call_.rows.q_positions.data()[block.q_begin + i],
                                         positions, block.visible);
      *lse.row(i) = softmax(scores_.row(i), seen, block.visible);
    }
    multiply_panels<X>(kernels(), {scores_.data, scores_.stride}, block.q_count, block.visible,
                       values_, packed_values_, shape_.dv, {},
                       head_rows<X>(call_.o, head, shape_.dv, block.q_begin));
  }

 private:
  /// From `seen` scores to probabilities, 0 for the others; returns the log of the sum of exp.
  static float softmax(float* row, int seen, int all) {
    std::fill(row + seen, row + all, 0.0F);
    if (seen == 0) return -std::numeric_limits<float>::infinity();
    const float largest = row_max(row, seen);
    for (int j = 0; j < seen; ++j) row[j] = fast_exp(row[j] - largest);
    const float sum = row_sum(row, seen);
    const float share = 1 / sum;
    for (int j = 0; j < seen; ++j) row[j] *= share;
    return largest + std::log(sum);
  }

  static float row_max(const float* row, int size) {
    float largest = row[0];
    int j = 0;
    if (size >= kFloats) {
      Floats lanes = load(row);
      for (j = kFloats; j + kFloats <= size; j += kFloats) {
        const Floats next = load(row + j);
        lanes = next > lanes ? next : lanes;
      }
      for (int l = 0; l < kFloats; ++l) largest = std::max(largest, lanes[l]);
    }
    for (; j < size; ++j) largest = std::max(largest, row[j]);
    return largest;
  }

  static float row_sum(const float* row, int size) {
    Floats lanes{};
    int j = 0;
    for (; j + kFloats <= size; j += kFloats) lanes += load(row + j);
    float sum = 0;
    for (; j < size; ++j) sum += row[j];
    for (int l = 0; l < kFloats; ++l) sum += lanes[l];
    return sum;
  }

  const AttentionShape& shape_;
  const AttentionForward& call_;
  const ops::AttentionSequence& sequence_;
  Panels keys_, values_;
  float *packed_keys_, *packed_values_, *wide_;
  Block<float> scores_;
};

}  // namespace

template <typename X>
void attention_forward(const ExecSpace& exec, const AttentionShape& shape,
                       const AttentionForward& call) {
  ops::require_attention_fits(shape, call.q, call.k, call.v, call.o, call.lse);
  const int group = shape.heads / shape.kv_heads;
  ops::for_each_kv_head(
      "konclave::simd::attention_forward", exec, shape, call, kBlockRows,
      [&](const ops::AttentionSequence& sequence, int kv_head, const Workspace& workspace) {
        const ForwardHead<X> work(shape, call, sequence, kv_head, workspace);
        for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
          for (const ops::AttentionBlock& block : sequence.blocks) work.run(head, block);
        }
      });
}

template void attention_forward<Bf16>(const ExecSpace&, const AttentionShape&,
                                      const AttentionForward&);
template void attention_forward<float>(const ExecSpace&, const AttentionShape&,
                                       const AttentionForward&);

}  // namespace konclave::simd
