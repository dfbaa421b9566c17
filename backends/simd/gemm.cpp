#include "simd/kernels.hpp"
#include "simd/offers.hpp"
#include "simd/product.hpp"

namespace konclave::simd {

namespace {

std::string refuses(const GemmShape& shape) {
  if (!kHostAccessible) return "needs host memory";
  if (shape.type == DType::fp64 || shape.result == DType::fp64) return "has no products in fp64";
  if (shape.type == DType::bf16 && cpu_multiplies_bf16()) {
    return "would widen bf16, which this CPU multiplies as it is";
  }
  return "";
}

std::string remark_on(DType type) {
  return type == DType::bf16 ? "bf16 is widened to fp32, block by block" : "";
}

/// The factor b of a product: x for a gradient of the weight, else the weight.
AnyIn factor(const GemmShape& shape, const AnyIn& b, const PreparedWeight* weight) {
  return shape.kind == GemmKind::weight_gradient ? b : weight->weight;
}

void run(const ExecSpace& exec, const GemmShape& shape, const GemmOperands& operands) {
  const AnyIn b = factor(shape, operands.b, operands.weight);
  multiply(exec, ops::product_of(shape, operands.a, b, operands.c), operands.workspace);
}

void run_grouped(const ExecSpace& exec, const GroupedGemmShape& shape,
                 const GroupedGemmOperands& operands) {
  const AnyIn b = factor(shape.each, operands.b, operands.weight);
  for (const ops::Product& product :
       ops::products_of(exec, shape, operands.offsets, operands.a, b, operands.c)) {
    multiply(exec, product, operands.workspace);
  }
}

}  // namespace

GemmOffer gemm_offer() {
  return {.backend = "simd",
          .refuses = &refuses,
          .workspace = &product_workspace,
          .run = &run,
          .remark = [](const GemmShape& shape) { return remark_on(shape.type); }};
}

GroupedGemmOffer grouped_gemm_offer() {
  return {.backend = "simd",
          .refuses = [](const GroupedGemmShape& shape) { return refuses(shape.each); },
          // Experts take turns, and one may have all rows.
          .workspace = [](const GroupedGemmShape& shape,
                          std::int64_t rows) { return product_workspace(shape.each, rows); },
          .run = &run_grouped,
          .remark = [](const GroupedGemmShape& shape) { return remark_on(shape.each.type); }};
}

}  // namespace konclave::simd
