#include "simd/attention_work.hpp"
#include "simd/offers.hpp"
#include "tensor/host_copy.hpp"

namespace konclave::simd {

std::vector<ops::AttentionSequence> plan(const ExecSpace& exec, const AttentionRows& rows) {
  return ops::plan_attention(to_host(exec, rows.q_offsets), to_host(exec, rows.k_offsets),
                             to_host(exec, rows.q_positions), to_host(exec, rows.k_positions),
                             kBlockRows);
}

std::size_t attention_workspace(const AttentionShape& shape, std::int64_t longest) {
  // As the backward pass takes it, which needs more.
  const auto piece = &Workspace::piece;
  const std::int64_t keys = padded(longest), dk = padded(shape.dk), dv = padded(shape.dv);
  const std::int64_t widest = std::max(dk, dv);
  const std::int64_t each = 3 * piece(keys, dk) + 2 * piece(keys, dv) +
                            2 * piece(kBlockRows, widest) + 3 * piece(kBlockRows, keys);
  return static_cast<std::size_t>(each * workers(ExecSpace())) * sizeof(float);
}

namespace {

std::string refuses(const AttentionShape& shape) {
  if (!kHostAccessible) return "needs host memory";
  if (shape.type == DType::fp64) return "has no products in fp64";
  return "";
}

void forward(const ExecSpace& exec, const AttentionShape& shape, const AttentionForward& call) {
  if (shape.type == DType::bf16) {
    attention_forward<Bf16>(exec, shape, call);
  } else {
    attention_forward<float>(exec, shape, call);
  }
}

void backward(const ExecSpace& exec, const AttentionShape& shape, const AttentionBackward& call) {
  if (shape.type == DType::bf16) {
    attention_backward<Bf16>(exec, shape, call);
  } else {
    attention_backward<float>(exec, shape, call);
  }
}

std::string remark(const AttentionShape& shape) {
  return shape.type == DType::bf16 ? "bf16 is widened to fp32, block by block" : "";
}

}  // namespace

AttentionOffer attention_offer() {
  return {"simd", &refuses, &attention_workspace, &forward, &backward, &remark};
}

}  // namespace konclave::simd
