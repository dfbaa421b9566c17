#pragma once

#include "ops/attention.hpp"
#include "ops/matrix.hpp"

#include <cstdint>

/// Attention made of matrix products, for backends that bring a product of their own. Works on a
/// block of query rows of one head at a time, with all the keys that the block sees:
///
///   forward    P = softmax(scale Q K^T)   O = P V   lse = log of the sum of exp(scale Q K^T)
///   backward   P = exp(scale Q K^T - lse)           dV += P^T dO
///              D = P * (dO V^T - rowsum(dO * O))    dQ = scale D K   dK += scale D^T Q
///
/// P and D are held for one block only, and always in the type that sums are taken in. A query
/// that sees no key has O = 0 and lse = -infinity.
namespace konclave::ops {

/// Throws when the operands of a call do not have the extents of its shape; of a backward pass,
/// either the operands or their gradients.
void require_attention_fits(const AttentionShape& shape, const AnyIn& q, const AnyIn& k,
                            const AnyIn& v, const AnyIn& o, const AnyIn& lse);

/// Bytes of scratch memory for either direction; `longest` is the longest sequence of keys.
std::size_t blocked_attention_workspace(const AttentionShape& shape, std::int64_t longest);

/// Waits for `exec` once, to plan the blocks; everything after that is asynchronous if `product`
/// is. Instantiated for Bf16, float and double.
template <typename X>
void blocked_attention_forward(const ExecSpace& exec, const AttentionShape& shape,
                               const AttentionForward& call, MatrixProduct<Accum<X>> product);
template <typename X>
void blocked_attention_backward(const ExecSpace& exec, const AttentionShape& shape,
                                const AttentionBackward& call, MatrixProduct<Accum<X>> product);

}  // namespace konclave::ops
