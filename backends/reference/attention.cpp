#include "ops/attention.hpp"

#include "reference/offers.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace konclave::reference {

namespace {

/// AttentionRows on the host.
struct HostRows {
  std::vector<int> q_offsets, k_offsets, q_positions, k_positions;

  HostRows(const ExecSpace& exec, const AttentionRows& rows)
      : q_offsets(to_host(exec, rows.q_offsets)),
        k_offsets(to_host(exec, rows.k_offsets)),
        q_positions(to_host(exec, rows.q_positions)),
        k_positions(to_host(exec, rows.k_positions)) {}

  /// Calls f(t, keys) for each query row t with the key rows that it sees.
  template <typename F> void for_each_query(F&& f) const {
    for (std::size_t s = 0; s + 1 < q_offsets.size(); ++s) {
      for (int t = q_offsets[s]; t < q_offsets[s + 1]; ++t) {
        std::vector<int> keys;
        for (int j = k_offsets[s]; j < k_offsets[s + 1]; ++j) {
          if (k_positions[j] <= q_positions[t]) keys.push_back(j);
        }
        f(t, keys);
      }
    }
  }
};

/// sum over i of a[i] b[i]
template <typename X> Accum<X> dot(const X* a, const X* b, int size) {
  Accum<X> sum = 0;
  for (int i = 0; i < size; ++i) sum += Accum<X>(a[i]) * Accum<X>(b[i]);
  return sum;
}

/// to[i] += factor * from[i]
template <typename X> void add_scaled(Accum<X>* to, Accum<X> factor, const X* from, int size) {
  for (int i = 0; i < size; ++i) to[i] += factor * Accum<X>(from[i]);
}

template <typename X> std::vector<X> rounded(const std::vector<Accum<X>>& wide) {
  std::vector<X> narrow;
  for (const Accum<X> value : wide) narrow.push_back(X(value));
  return narrow;
}

/// o[t] = sum over keys j of p[j] v[j] with p[j] = exp(scale q[t].k[j] - lse[t]); see attention.hpp
template <typename X>
void forward_loops(const ExecSpace& exec, const AttentionShape& shape,
                   const AttentionForward& call) {
  using A = Accum<X>;
  const std::vector<X> q = to_host(exec, call.q.flat<X>()), k = to_host(exec, call.k.flat<X>()),
                       v = to_host(exec, call.v.flat<X>());
  std::vector<A> o(call.o.size(), 0), lse(call.lse.size(), -std::numeric_limits<A>::infinity());
  const int dk = shape.dk, dv = shape.dv, heads = shape.heads, kv_heads = shape.kv_heads;
  HostRows(exec, call.rows).for_each_query([&](int t, const std::vector<int>& keys) {
    for (int head = 0; head < heads && !keys.empty(); ++head) {
      const int kv = head / (heads / kv_heads);
      const std::int64_t row = std::int64_t{t} * heads + head;
      const X* query = &q[row * dk];
      std::vector<A> scores;
      A largest = -std::numeric_limits<A>::infinity(), sum = 0;
      for (const std::int64_t j : keys) {
        scores.push_back(A(shape.scale) * dot(query, &k[(j * kv_heads + kv) * dk], dk));
        largest = std::max(largest, scores.back());
      }
      for (const A score : scores) sum += std::exp(score - largest);
      lse[row] = largest + std::log(sum);
      for (std::size_t n = 0; n < keys.size(); ++n) {
        const A p = std::exp(scores[n] - largest) / sum;
        const std::int64_t key_row = std::int64_t{keys[n]} * kv_heads + kv;
        add_scaled(&o[row * dv], p, &v[key_row * dv], dv);
      }
    }
  });
  to_device(exec, rounded<X>(o), call.o.flat<X>());
  to_device(exec, lse, call.lse.flat<A>());
}

/// With p as above and d[j] = p[j] (do[t].v[j] - do[t].o[t]):
/// dq[t] = scale sum over j of d[j] k[j];   dk[j] += scale d[j] q[t];   dv[j] += p[j] do[t]
template <typename X>
void backward_loops(const ExecSpace& exec, const AttentionShape& shape,
                    const AttentionBackward& call) {
  using A = Accum<X>;
  const std::vector<X> q = to_host(exec, call.q.flat<X>()), k = to_host(exec, call.k.flat<X>()),
                       v = to_host(exec, call.v.flat<X>()), o = to_host(exec, call.o.flat<X>()),
                       d_o = to_host(exec, call.d_o.flat<X>());
  const std::vector<A> lse = to_host(exec, call.lse.flat<A>());
  std::vector<A> grad_q(q.size(), 0), grad_k(k.size(), 0), grad_v(v.size(), 0);
  const int dk = shape.dk, dv = shape.dv, heads = shape.heads, kv_heads = shape.kv_heads;
  const A scale = A(shape.scale);
  HostRows(exec, call.rows).for_each_query([&](int t, const std::vector<int>& keys) {
    for (int head = 0; head < heads; ++head) {
      const int kv = head / (heads / kv_heads);
      const std::int64_t row = std::int64_t{t} * heads + head;
      const X *query = &q[row * dk], *upstream = &d_o[row * dv];
      const A delta = dot(upstream, &o[row * dv], dv);
      for (const int j : keys) {
        const std::int64_t key_row = std::int64_t{j} * kv_heads + kv;
        const X *key = &k[key_row * dk], *value = &v[key_row * dv];
        const A p = std::exp(scale * dot(query, key, dk) - lse[row]);
        const A d = p * (dot(upstream, value, dv) - delta);
        add_scaled(&grad_q[row * dk], scale * d, key, dk);
        add_scaled(&grad_k[key_row * dk], scale * d, query, dk);
        add_scaled(&grad_v[key_row * dv], p, upstream, dv);
      }
    }
  });
  to_device(exec, rounded<X>(grad_q), call.dq.flat<X>());
  to_device(exec, rounded<X>(grad_k), call.dk.flat<X>());
  to_device(exec, rounded<X>(grad_v), call.dv.flat<X>());
}

void forward(const ExecSpace& exec, const AttentionShape& shape, const AttentionForward& call) {
  dispatch(shape.type,
           [&](auto tag) { forward_loops<typename decltype(tag)::type>(exec, shape, call); });
}

void backward(const ExecSpace& exec, const AttentionShape& shape, const AttentionBackward& call) {
  dispatch(shape.type,
           [&](auto tag) { backward_loops<typename decltype(tag)::type>(exec, shape, call); });
}

}  // namespace

AttentionOffer attention_offer() {
  return {"reference", [](const AttentionShape&) { return std::string(); },
          [](const AttentionShape&, std::int64_t) { return std::size_t{0}; }, &forward, &backward};
}

}  // namespace konclave::reference
