#include "kokkos_kernels/multiply.hpp"
#include "kokkos_kernels/offers.hpp"

namespace konclave::kokkos_kernels {

namespace {

std::string refuses(const GroupedGemmShape& shape) {
  return refuses_types(shape.each.type, shape.each.result);
}

std::size_t workspace(const GroupedGemmShape&, std::int64_t) { return 0; }

void run(const ExecSpace& exec, const GroupedGemmShape& shape,
         const GroupedGemmOperands& operands) {
  const AnyIn& b =
      shape.each.kind == GemmKind::weight_gradient ? operands.b : operands.weight->weight;
  for (const ops::Product& product :
       ops::products_of(exec, shape, operands.offsets, operands.a, b, operands.c)) {
    multiply(exec, product);
  }
}

}  // namespace

GroupedGemmOffer grouped_gemm_offer() { return {"kokkos_kernels", &refuses, &workspace, &run}; }

}  // namespace konclave::kokkos_kernels
