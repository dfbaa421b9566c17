#pragma once

#include "tensor/view.hpp"

#include <compare>
#include <string>
#include <string_view>

namespace konclave {

/// Causal attention with grouped queries: head n of the queries reads head n / (heads/kv_heads)
/// of the keys and values. Key and value head sizes may differ.
struct AttentionShape {
  int heads = 0, kv_heads = 0;
  int dk = 0, dv = 0;
  double scale = 1;  ///< of the scores, 1/sqrt(dk) unless positions are stretched
  DType type = DType::fp32;

  auto operator<=>(const AttentionShape&) const = default;
};
std::string describe(const AttentionShape& shape);

/// Rows are grouped in sequences: sequence i has query rows q_offsets(i) .. q_offsets(i+1)-1 and
/// key rows likewise. A query sees the keys of its own sequence whose position is at most its
/// own; row numbers play no part, so a rank may hold any part of a sequence. Positions ascend
/// within the rows of a sequence.
struct AttentionRows {
  View1<const int> q_offsets, k_offsets;      ///< (sequences + 1)
  View1<const int> q_positions, k_positions;  ///< (Tq), (Tk)
};

struct AttentionForward {
  AttentionRows rows;
  AnyIn q, k, v;      ///< (Tq, heads*dk), (Tk, kv_heads*dk), (Tk, kv_heads*dv)
  AnyView o;          ///< (Tq, heads*dv)
  AnyView lse;        ///< (Tq, heads), accumulation type: log of the sum of exp of the scores;
                      ///< -infinity, and o 0, for a query that sees no key
  AnyView workspace;  ///< as many fp32 or fp64 elements as `workspace` said in bytes
};

struct AttentionBackward {
  AttentionRows rows;
  AnyIn q, k, v, o, lse, d_o;
  AnyView dq, dk, dv;  ///< overwritten
  AnyView workspace;
};

/// See GemmOffer. Scores are never held for more than a block of queries of one head.
struct AttentionOffer {
  std::string_view backend;
  std::string (*refuses)(const AttentionShape& shape);
  /// Bytes of scratch memory for either direction; `longest` is the longest sequence, in
  /// rows of keys.
  std::size_t (*workspace)(const AttentionShape& shape, std::int64_t longest);
  void (*forward)(const ExecSpace& exec, const AttentionShape& shape, const AttentionForward& call);
  void (*backward)(const ExecSpace& exec, const AttentionShape& shape,
                   const AttentionBackward& call);
  std::string (*remark)(const AttentionShape& shape) = nullptr;
};

}  // namespace konclave
