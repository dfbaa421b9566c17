#include "ops/attention.hpp"

#include "kokkos_kernels/multiply.hpp"
#include "kokkos_kernels/offers.hpp"
#include "ops/blocked_attention.hpp"

namespace konclave::kokkos_kernels {

namespace {

std::string refuses(const AttentionShape& shape) { return refuses_types(shape.type, shape.type); }

void forward(const ExecSpace& exec, const AttentionShape& shape, const AttentionForward& call) {
  if (shape.type == DType::fp64) {
    ops::blocked_attention_forward<double>(exec, shape, call, &gemm<double>);
  } else {
    ops::blocked_attention_forward<float>(exec, shape, call, &gemm<float>);
  }
}

void backward(const ExecSpace& exec, const AttentionShape& shape, const AttentionBackward& call) {
  if (shape.type == DType::fp64) {
    ops::blocked_attention_backward<double>(exec, shape, call, &gemm<double>);
  } else {
    ops::blocked_attention_backward<float>(exec, shape, call, &gemm<float>);
  }
}

}  // namespace

AttentionOffer attention_offer() {
  return {"kokkos_kernels", &refuses, &ops::blocked_attention_workspace, &forward, &backward};
}

}  // namespace konclave::kokkos_kernels
