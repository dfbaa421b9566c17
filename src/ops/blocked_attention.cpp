#include "ops/blocked_attention.hpp"

#include "ops/attention_rows.hpp"
#include "ops/fast_math.hpp"
#include "ops/rows.hpp"

#include <algorithm>
#include <limits>
#include <vector>

namespace konclave::ops {

namespace {

/// Query rows of a block: enough to keep a product busy, few enough for P to stay in the cache.
constexpr int kBlockRows = 64;

/// A matrix (T, heads*size) by its heads.
template <typename X> struct Heads {
  Matrix<X> all;
  std::int64_t size;

  Matrix<X> rows(int head, std::int64_t first, std::int64_t count) const {
    return {all.data + first * all.stride + head * size, count, size, all.stride};
  }
};

/// What masks a block: positions of its queries, and of the keys of its sequence.
struct BlockMask {
  const int *q_positions, *k_positions;
  int keys;  ///< the most that a row sees

  /// How many keys row i sees: those with positions up to its own, found by bisection.
  KOKKOS_INLINE_FUNCTION int visible(int i) const {
    int seen = 0, unknown = keys;
    while (unknown > 0) {
      const int half = unknown / 2;
      const bool sees = k_positions[seen + half] <= q_positions[i];
      seen = sees ? seen + half + 1 : seen;
      unknown = sees ? unknown - half - 1 : half;
    }
    return seen;
  }
};

BlockMask mask_of(const AttentionRows& rows, const AttentionSequence& sequence,
                  const AttentionBlock& block) {
  return {rows.q_positions.data() + block.q_begin, rows.k_positions.data() + sequence.k_begin,
          block.visible};
}

/// Rows of p from scores s to probabilities exp(s - lse), 0 for unseen keys, and lse (rows, 1).
template <typename A>
void softmax(const ExecSpace& exec, const BlockMask& mask, const Matrix<A>& p,
             const Matrix<A>& lse) {
  Kokkos::parallel_for(
      "konclave::ops::attention_softmax", row_policy(exec, p.rows),
      KOKKOS_LAMBDA(const RowMember& team) {
        constexpr A kNone = -std::numeric_limits<A>::infinity();
        const int i = team.league_rank(), visible = mask.visible(i);
        A* const row = p.data + i * p.stride;
        const A largest = row_max<A>(team, visible, kNone, [=](std::int64_t j) { return row[j]; });
        const A sum = row_sum<A>(team, visible, [=](std::int64_t j) {
          const A e = fast_exp(row[j] - largest);
          row[j] = e;
          return e;
        });
        team.team_barrier();
        const A share = 1 / sum;
        row_for(team, visible, [=](std::int64_t j) { row[j] *= share; });
        row_for(team, p.columns - visible, [=](std::int64_t j) { row[visible + j] = 0; });
        Kokkos::single(Kokkos::PerTeam(team), [&] {
          lse.data[i * lse.stride] = visible == 0 ? kNone : largest + A(math::log(sum));
        });
      });
}

/// Rows of p from scores to probabilities, and of d from dO V^T to D; see the top of the header.
template <typename A>
void softmax_gradient(const ExecSpace& exec, const BlockMask& mask, const Matrix<const A>& o,
                      const Matrix<const A>& d_o, const Matrix<const A>& lse, const Matrix<A>& p,
                      const Matrix<A>& d) {
  Kokkos::parallel_for(
      "konclave::ops::attention_softmax_gradient", row_policy(exec, p.rows),
      KOKKOS_LAMBDA(const RowMember& team) {
        const std::int64_t i = team.league_rank();
        const int visible = mask.visible(team.league_rank());
        const A *const out = o.data + i * o.stride, *const upstream = d_o.data + i * d_o.stride;
        A *const probability = p.data + i * p.stride, *const gradient = d.data + i * d.stride;
        const A delta =
            row_sum<A>(team, o.columns, [=](std::int64_t j) { return upstream[j] * out[j]; });
        const A log_sum = lse.data[i * lse.stride];
        row_for(team, visible, [=](std::int64_t j) {
          const A e = fast_exp(probability[j] - log_sum);
          probability[j] = e;
          gradient[j] = e * (gradient[j] - delta);
        });
        row_for(team, p.columns - visible, [=](std::int64_t j) {
          probability[visible + j] = 0;
          gradient[visible + j] = 0;
        });
      });
}

/// The forward pass for one head and block; k and v are the sequence's, wide.
template <typename X> struct ForwardBlock {
  using A = Accum<X>;
  const ExecSpace& exec;
  A scale;
  MatrixProduct<A> product;

  void operator()(const BlockMask& mask, const Matrix<const X>& q, const Matrix<const A>& k,
                  const Matrix<const A>& v, const Matrix<A>& lse, const Matrix<X>& o,
                  Workspace<A> workspace) const {
    const Matrix<const A> queries = widened<X>(exec, q, workspace);
    const Matrix<A> p = workspace.take(q.rows, mask.keys);
    const Matrix<A> out = wide_result(o, workspace);
    product(exec, scale, {queries}, transposed(k.row_block(0, mask.keys)), 0, p);
    softmax(exec, mask, p, lse);
    product(exec, 1, {p}, {v.row_block(0, mask.keys)}, 0, out);
    store(exec, out, o);
  }
};

/// The backward pass for one head and block; dk and dv are added to.
template <typename X> struct BackwardBlock {
  using A = Accum<X>;
  const ExecSpace& exec;
  A scale;
  MatrixProduct<A> product;

  struct Rows {
    Matrix<const X> q, o, d_o;
    Matrix<const A> lse;
    Matrix<X> dq;
  };
  struct Keys {
    Matrix<const A> k, v;
    Matrix<A> dk, dv;
  };

  void operator()(const BlockMask& mask, const Rows& rows, const Keys& all,
                  Workspace<A> workspace) const {
    const Matrix<const A> k = all.k.row_block(0, mask.keys), v = all.v.row_block(0, mask.keys);
    const Matrix<const A> q = widened<X>(exec, rows.q, workspace);
    const Matrix<const A> o = widened<X>(exec, rows.o, workspace);
    const Matrix<const A> d_o = widened<X>(exec, rows.d_o, workspace);
    const Matrix<A> p = workspace.take(q.rows, mask.keys), d = workspace.take(q.rows, mask.keys);
    const Matrix<A> dq = wide_result(rows.dq, workspace);
    product(exec, scale, {q}, transposed(k), 0, p);
    product(exec, 1, {d_o}, transposed(v), 0, d);
    softmax_gradient<A>(exec, mask, o, d_o, rows.lse, p, d);
    product(exec, 1, transposed(p), {d_o}, 1, all.dv.row_block(0, mask.keys));
    product(exec, scale, transposed(d), {q}, 1, all.dk.row_block(0, mask.keys));
    product(exec, scale, {d}, {k}, 0, dq);
    store(exec, dq, rows.dq);
  }
};

}  // namespace

void require_attention_fits(const AttentionShape& shape, const AnyIn& q, const AnyIn& k,
                            const AnyIn& v, const AnyIn& o, const AnyIn& lse) {
  const bool fits =
      q.extent(1) == shape.heads * shape.dk && k.extent(1) == shape.kv_heads * shape.dk &&
      v.extent(1) == shape.kv_heads * shape.dv && o.extent(1) == shape.heads * shape.dv &&
      lse.extent(1) == shape.heads && k.extent(0) == v.extent(0) && q.extent(0) == o.extent(0) &&
      q.extent(0) == lse.extent(0) && shape.heads % shape.kv_heads == 0;
  require(fits, "attention of " + describe(shape) + " does not fit q " + q.describe() + ", k " +
                    k.describe() + ", v " + v.describe() + ", o " + o.describe());
}

std::size_t blocked_attention_workspace(const AttentionShape& shape, std::int64_t longest) {
  // As the backward pass takes it, which needs more.
  const auto bytes = [&](auto tag) {
    using A = typename decltype(tag)::type;
    const auto piece = &Workspace<A>::piece;
    std::int64_t elements = 2 * piece(kBlockRows, longest);
    if (shape.type != kDTypeOf<A>) {
      elements += 2 * piece(longest, shape.dk) + 2 * piece(longest, shape.dv) +
                  2 * piece(kBlockRows, shape.dk) + 2 * piece(kBlockRows, shape.dv);
    }
    return static_cast<std::size_t>(elements) * sizeof(A);
  };
  return shape.type == DType::fp64 ? bytes(TypeTag<double>{}) : bytes(TypeTag<float>{});
}

template <typename X>
void blocked_attention_forward(const ExecSpace& exec, const AttentionShape& shape,
                               const AttentionForward& call, MatrixProduct<Accum<X>> product) {
  using A = Accum<X>;
  require_attention_fits(shape, call.q, call.k, call.v, call.o, call.lse);
  const Heads<const X> q{matrix_of<X>(call.q), shape.dk}, k{matrix_of<X>(call.k), shape.dk},
      v{matrix_of<X>(call.v), shape.dv};
  const Heads<X> o{matrix_of<X>(call.o), shape.dv};
  const Heads<A> lse{matrix_of<A>(call.lse), 1};
  const ForwardBlock<X> forward{exec, static_cast<A>(shape.scale), product};
  const int group = shape.heads / shape.kv_heads;
  for (const AttentionSequence& sequence : plan_attention(exec, call.rows, kBlockRows)) {
    for (int kv = 0; kv < shape.kv_heads; ++kv) {
      Workspace<A> workspace(call.workspace);
      const int keys = sequence.visible();
      const auto wide_k = widened<X>(exec, k.rows(kv, sequence.k_begin, keys), workspace);
      const auto wide_v = widened<X>(exec, v.rows(kv, sequence.k_begin, keys), workspace);
      for (int head = kv * group; head < (kv + 1) * group; ++head) {
        for (const AttentionBlock& block : sequence.blocks) {
          const int first = block.q_begin, count = block.q_count;
          forward(mask_of(call.rows, sequence, block), q.rows(head, first, count), wide_k, wide_v,
                  lse.rows(head, first, count), o.rows(head, first, count), workspace);
        }
      }
    }
  }
}

template <typename X>
void blocked_attention_backward(const ExecSpace& exec, const AttentionShape& shape,
                                const AttentionBackward& call, MatrixProduct<Accum<X>> product) {
  using A = Accum<X>;
  require_attention_fits(shape, call.q, call.k, call.v, call.o, call.lse);
  require_attention_fits(shape, call.dq, call.dk, call.dv, call.d_o, call.lse);
  const Heads<const X> q{matrix_of<X>(call.q), shape.dk}, k{matrix_of<X>(call.k), shape.dk},
      v{matrix_of<X>(call.v), shape.dv}, o{matrix_of<X>(call.o), shape.dv},
      d_o{matrix_of<X>(call.d_o), shape.dv};
  const Heads<const A> lse{matrix_of<A>(call.lse), 1};
  const Heads<X> dq{matrix_of<X>(call.dq), shape.dk}, dk{matrix_of<X>(call.dk), shape.dk},
      dv{matrix_of<X>(call.dv), shape.dv};
  const BackwardBlock<X> backward{exec, static_cast<A>(shape.scale), product};
  const int group = shape.heads / shape.kv_heads;
  for (const AttentionSequence& sequence : plan_attention(exec, call.rows, kBlockRows)) {
    const int k_first = sequence.k_begin, keys = sequence.k_count;
    for (int kv = 0; kv < shape.kv_heads; ++kv) {
      Workspace<A> workspace(call.workspace);
      const Matrix<X> dk_rows = dk.rows(kv, k_first, keys), dv_rows = dv.rows(kv, k_first, keys);
      const typename BackwardBlock<X>::Keys wide{
          widened<X>(exec, k.rows(kv, k_first, keys), workspace),
          widened<X>(exec, v.rows(kv, k_first, keys), workspace), wide_result(dk_rows, workspace),
          wide_result(dv_rows, workspace)};
      set_zero(exec, wide.dk);
      set_zero(exec, wide.dv);
      for (int head = kv * group; head < (kv + 1) * group; ++head) {
        for (const AttentionBlock& block : sequence.blocks) {
          const int first = block.q_begin, count = block.q_count;
          backward(
              mask_of(call.rows, sequence, block),
              {q.rows(head, first, count), o.rows(head, first, count), d_o.rows(head, first, count),
               lse.rows(head, first, count), dq.rows(head, first, count)},
              wide, workspace);
        }
      }
      store(exec, wide.dk, dk_rows);
      store(exec, wide.dv, dv_rows);
    }
  }
}

template void blocked_attention_forward<Bf16>(const ExecSpace&, const AttentionShape&,
                                              const AttentionForward&, MatrixProduct<float>);
template void blocked_attention_forward<float>(const ExecSpace&, const AttentionShape&,
                                               const AttentionForward&, MatrixProduct<float>);
template void blocked_attention_forward<double>(const ExecSpace&, const AttentionShape&,
                                                const AttentionForward&, MatrixProduct<double>);
template void blocked_attention_backward<Bf16>(const ExecSpace&, const AttentionShape&,
                                               const AttentionBackward&, MatrixProduct<float>);
template void blocked_attention_backward<float>(const ExecSpace&, const AttentionShape&,
                                                const AttentionBackward&, MatrixProduct<float>);
template void blocked_attention_backward<double>(const ExecSpace&, const AttentionShape&,
                                                 const AttentionBackward&, MatrixProduct<double>);

}  // namespace konclave::ops
