#include "kokkos_kernels/multiply.hpp"
#include "kokkos_kernels/offers.hpp"

namespace konclave::kokkos_kernels {

namespace {

std::string refuses(const GemmShape& shape) { return refuses_types(shape.type, shape.result); }

std::size_t workspace(const GemmShape&, std::int64_t) { return 0; }

void run(const ExecSpace& exec, const GemmShape& shape, const GemmOperands& operands) {
  const AnyIn& b = shape.kind == GemmKind::weight_gradient ? operands.b : operands.weight->weight;
  multiply(exec, ops::product_of(shape, operands.a, b, operands.c));
}

}  // namespace

GemmOffer gemm_offer() { return {"kokkos_kernels", &refuses, &workspace, &run}; }

}  // namespace konclave::kokkos_kernels
