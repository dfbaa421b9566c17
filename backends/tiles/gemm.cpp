#include "tiles/cpu_kernels.hpp"
#include "tiles/offers.hpp"
#include "tiles/packing.hpp"
#include "tiles/product.hpp"

namespace konclave::tiles {

namespace {

std::string refuses(const GemmShape& shape) {
  if (!kHostAccessible) return "needs host memory";
  if (shape.type != DType::bf16) return "multiplies bf16 only";
  if (shape.result == DType::fp64) return "gives no results in fp64";
  return why_no_kernels();
}

void pack(const ExecSpace& exec, const GemmShape& shape, const AnyIn& rows, std::int64_t first,
          const AnyView& to) {
  pack_weight(exec, *cpu_kernels().front().kernels, shape, rows, first, to);
}

template <typename Shape, typename Operands>
void run(const ExecSpace& exec, const Shape& shape, const Operands& operands) {
  multiply(exec, *cpu_kernels().front().kernels, shape, operands);
}

std::string remark() { return std::string(cpu_kernels().front().remark); }

}  // namespace

GemmOffer gemm_offer() {
  return {.backend = "tiles",
          .refuses = &refuses,
          .workspace = &product_workspace,
          .run = &run<GemmShape, GemmOperands>,
          .remark = [](const GemmShape&) { return remark(); },
          .packing = {&weight_form, &pack}};
}

GroupedGemmOffer grouped_gemm_offer() {
  return {.backend = "tiles",
          .refuses = [](const GroupedGemmShape& shape) { return refuses(shape.each); },
          // Experts take turns, and one may have all rows.
          .workspace = [](const GroupedGemmShape& shape,
                          std::int64_t rows) { return product_workspace(shape.each, rows); },
          .run = &run<GroupedGemmShape, GroupedGemmOperands>,
          .remark = [](const GroupedGemmShape&) { return remark(); },
          .packing = {&weight_form, &pack}};
}

}  // namespace konclave::tiles
