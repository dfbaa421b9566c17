#include "onednn/offers.hpp"
#include "onednn/sgemm.hpp"
#include "ops/blocked_attention.hpp"
#include "ops/widening_attention.hpp"

namespace konclave::onednn {

namespace {

struct Passes {
  template <typename X>
  static void forward(const ExecSpace& exec, const AttentionShape& shape,
                      const AttentionForward& call) {
    ops::blocked_attention_forward<X>(exec, shape, call, &sgemm);
  }
  template <typename X>
  static void backward(const ExecSpace& exec, const AttentionShape& shape,
                       const AttentionBackward& call) {
    ops::blocked_attention_backward<X>(exec, shape, call, &sgemm);
  }
};

}  // namespace

AttentionOffer attention_offer() {
  return ops::widening_attention<Passes>("onednn", &ops::blocked_attention_workspace);
}

}  // namespace konclave::onednn
