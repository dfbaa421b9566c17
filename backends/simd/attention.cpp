#include "ops/widening_attention.hpp"
#include "simd/attention_work.hpp"
#include "simd/offers.hpp"

namespace konclave::simd {

std::size_t attention_workspace(const AttentionShape& shape, std::int64_t longest) {
  // As the backward pass takes it, which needs more.
  const auto piece = &Workspace::piece;
  const std::int64_t keys = padded(longest), dk = padded(shape.dk), dv = padded(shape.dv);
  const std::int64_t widest = std::max(dk, dv);
  const std::int64_t each = 3 * piece(keys, dk) + 2 * piece(keys, dv) +
                            2 * piece(kBlockRows, widest) + 3 * piece(kBlockRows, keys);
  return static_cast<std::size_t>(each * ops::workers(ExecSpace())) * sizeof(float);
}

namespace {

struct Passes {
  template <typename X>
  static void forward(const ExecSpace& exec, const AttentionShape& shape,
                      const AttentionForward& call) {
    attention_forward<X>(exec, shape, call);
  }
  template <typename X>
  static void backward(const ExecSpace& exec, const AttentionShape& shape,
                       const AttentionBackward& call) {
    attention_backward<X>(exec, shape, call);
  }
};

}  // namespace

AttentionOffer attention_offer() {
  return ops::widening_attention<Passes>("simd", &attention_workspace);
}

}  // namespace konclave::simd
