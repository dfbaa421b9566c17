#include "ops/blocked_attention.hpp"
#include "ops/fast_math.hpp"
#include "simd/attention_work.hpp"

namespace konclave::simd {

namespace {

/// One key and value head of one sequence, with the heads of the queries that read it.
template <typename X> class BackwardHead {
 public:
  BackwardHead(const AttentionShape& shape, const AttentionBackward& call,
               const ops::AttentionSequence& sequence, int kv_head, Workspace workspace)
      : shape_(shape),
        call_(call),
        sequence_(sequence),
        kv_head_(kv_head),
        keys_(sequence.k_count),
        columns_(padded(keys_)),
        k_transposed_(kernels(), shape.dk, keys_),
        v_transposed_(kernels(), shape.dv, keys_),
        k_(kernels(), keys_, shape.dk),
        packed_kt_(workspace.take(1, k_transposed_.size()).data),
        packed_vt_(workspace.take(1, v_transposed_.size()).data),
        packed_k_(workspace.take(1, k_.size()).data),
        packed_rows_(workspace.take(kBlockRows, padded(std::max(shape.dk, shape.dv))).data),
        wide_(workspace.take(kBlockRows, std::max(shape.dk, shape.dv)).data),
        p_{workspace.take(kBlockRows, columns_).data, columns_},
        d_{workspace.take(kBlockRows, columns_).data, columns_},
        transposed_{workspace.take(columns_, kBlockRows).data, kBlockRows},
        dk_{workspace.take(keys_, shape.dk).data, shape.dk},
        dv_{workspace.take(keys_, shape.dv).data, shape.dv} {
    const Block<const X> k = head_rows<X>(call.k, kv_head, shape.dk, sequence.k_begin);
    pack_transposed<X>(k_transposed_, k, packed_kt_);
    pack<X>(k_, k, packed_k_);
    pack_transposed<X>(v_transposed_, head_rows<X>(call.v, kv_head, shape.dv, sequence.k_begin),
                       packed_vt_);
    std::fill(dk_.data, dk_.row(keys_), 0.0F);
    std::fill(dv_.data, dv_.row(keys_), 0.0F);
  }

  /// Overwrites dq, adds to dk and dv.
  void run(int head, const ops::AttentionBlock& block) const {
    const Kernels& best = kernels();
    const int rows = block.q_count, seen = block.visible;
    const auto scale = static_cast<float>(shape_.scale);
    const Block<const X> q = head_rows<X>(call_.q, head, shape_.dk, block.q_begin);
    const Block<const X> d_o = head_rows<X>(call_.d_o, head, shape_.dv, block.q_begin);
    multiply_panels<float>(best, wide_rows<X>(q, rows, shape_.dk, wide_), rows, shape_.dk,
                           k_transposed_, packed_kt_, seen, {scale, false}, p_);
    multiply_panels<float>(best, wide_rows<X>(d_o, rows, shape_.dv, wide_), rows, shape_.dv,
                           v_transposed_, packed_vt_, seen, {}, d_);
    softmax_gradient(head, block);
    add_transposed(p_, rows, seen, d_o, shape_.dv, 1, dv_);
    add_transposed(d_, rows, seen, q, shape_.dk, scale, dk_);
    multiply_panels<X>(best, {d_.data, d_.stride}, rows, seen, k_, packed_k_, shape_.dk,
                       {scale, false}, head_rows<X>(call_.dq, head, shape_.dk, block.q_begin));
  }

  void store_gradients() const {
    const auto put = [&](Block<const float> from, const AnyView& to, int size) {
      finish<X>(from, keys_, size, {}, head_rows<X>(to, kv_head_, size, sequence_.k_begin));
    };
    put({dk_.data, dk_.stride}, call_.dk, shape_.dk);
    put({dv_.data, dv_.stride}, call_.dv, shape_.dv);
  }

 private:
  /// p from scores to probabilities, d from dO V^T to p (d - rowsum(dO O)), 0 for unseen keys.
  void softmax_gradient(int head, const ops::AttentionBlock& block) const {
    const Block<const float> lse = head_rows<float>(call_.lse, head, 1, block.q_begin);
    const Block<const X> o = head_rows<X>(call_.o, head, shape_.dv, block.q_begin);
    const Block<const X> d_o = head_rows<X>(call_.d_o, head, shape_.dv, block.q_begin);
    const int* const positions = call_.rows.k_positions.data() + sequence_.k_begin;
    for (int i = 0; i < block.q_count; ++i) {
      const int seen = ops::visible_keys(call_.rows.q_positions.data()[block.q_begin + i],
                                         positions, block.visible);
      float delta = 0;
      for (int j = 0; j < shape_.dv; ++j) {
        delta += static_cast<float>(o.row(i)[j]) * static_cast<float>(d_o.row(i)[j]);
      }
      float* const probability = p_.row(i);
      float* const gradient = d_.row(i);
      const float log_sum = *lse.row(i);
      for (int j = 0; j < seen; ++j) {
        const float e = fast_exp(probability[j] - log_sum);
        probability[j] = e;
        gradient[j] = e * (gradient[j] - delta);
      }
      std::fill(probability + seen, probability + block.visible, 0.0F);
      std::fill(gradient + seen, gradient + block.visible, 0.0F);
    }
  }

  /// to += alpha rows^T x:  rows (count, seen), x (count, size), to (seen, size).
  void add_transposed(Block<float> rows, int count, int seen, Block<const X> x, int size,
                      float alpha, Block<float> to) const {
    const Panels panels(kernels(), count, size);
    pack<X>(panels, x, packed_rows_);
    copy_transposed<float>({rows.data, rows.stride}, count, seen, transposed_, count);
    for (int first = 0; first < seen; first += kBlockRows) {
      multiply_panels<float>(kernels(), {transposed_.row(first), transposed_.stride},
                             std::min(kBlockRows, seen - first), count, panels, packed_rows_, size,
                             {alpha, true}, {to.row(first), to.stride});
    }
  }

  const AttentionShape& shape_;
  const AttentionBackward& call_;
  const ops::AttentionSequence& sequence_;
  int kv_head_, keys_;
  std::int64_t columns_;
  Panels k_transposed_, v_transposed_, k_;
  float *packed_kt_, *packed_vt_, *packed_k_, *packed_rows_, *wide_;
  Block<float> p_, d_, transposed_, dk_, dv_;
};

}  // namespace

template <typename X>
void attention_backward(const ExecSpace& exec, const AttentionShape& shape,
                        const AttentionBackward& call) {
  ops::require_attention_fits(shape, call.q, call.k, call.v, call.o, call.lse);
  ops::require_attention_fits(shape, call.dq, call.dk, call.dv, call.d_o, call.lse);
  const int group = shape.heads / shape.kv_heads;
  ops::for_each_kv_head(
      "konclave::simd::attention_backward", exec, shape, call, kBlockRows,
      [&](const ops::AttentionSequence& sequence, int kv_head, const Workspace& workspace) {
        const BackwardHead<X> work(shape, call, sequence, kv_head, workspace);
        for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
          for (const ops::AttentionBlock& block : sequence.blocks) work.run(head, block);
        }
        work.store_gradients();
      });
}

template void attention_backward<Bf16>(const ExecSpace&, const AttentionShape&,
                                       const AttentionBackward&);
template void attention_backward<float>(const ExecSpace&, const AttentionShape&,
                                        const AttentionBackward&);

}  // namespace konclave::simd
