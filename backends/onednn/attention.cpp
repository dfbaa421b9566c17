#include "ops/attention.hpp"

#include "onednn/offers.hpp"
#include "onednn/sgemm.hpp"
#include "ops/blocked_attention.hpp"

namespace konclave::onednn {

namespace {

std::string refuses(const AttentionShape& shape) {
  if (!kHostAccessible) return "needs host memory";
  if (shape.type == DType::fp64) return "has no products in fp64";
  return "";
}

void forward(const ExecSpace& exec, const AttentionShape& shape, const AttentionForward& call) {
  if (shape.type == DType::bf16) {
    ops::blocked_attention_forward<Bf16>(exec, shape, call, &sgemm);
  } else {
    ops::blocked_attention_forward<float>(exec, shape, call, &sgemm);
  }
}

void backward(const ExecSpace& exec, const AttentionShape& shape, const AttentionBackward& call) {
  if (shape.type == DType::bf16) {
    ops::blocked_attention_backward<Bf16>(exec, shape, call, &sgemm);
  } else {
    ops::blocked_attention_backward<float>(exec, shape, call, &sgemm);
  }
}

std::string remark(const AttentionShape& shape) {
  return shape.type == DType::bf16 ? "bf16 is widened to fp32, block by block" : "";
}

}  // namespace

AttentionOffer attention_offer() {
  return {"onednn", &refuses, &ops::blocked_attention_workspace, &forward, &backward, &remark};
}

}  // namespace konclave::onednn
