#include "onednn/multiply.hpp"
#include "onednn/offers.hpp"

namespace konclave::onednn {

namespace {

std::string refuses(const GroupedGemmShape& shape) { return refuses_product(shape.each); }

std::size_t workspace(const GroupedGemmShape& shape, std::int64_t rows) {
  return product_workspace(shape.each, rows);  // experts take turns, and one may have all rows
}

void run(const ExecSpace& exec, const GroupedGemmShape& shape,
         const GroupedGemmOperands& operands) {
  const AnyIn b = shape.each.kind == GemmKind::weight_gradient
                      ? operands.b
                      : prepared_factor(shape.each, *operands.weight);
  for (const ops::Product& product :
       ops::products_of(exec, shape, operands.offsets, operands.a, b, operands.c)) {
    multiply(exec, product, operands.workspace);
  }
}

}  // namespace

GroupedGemmOffer grouped_gemm_offer() {
  return {"onednn",
          &refuses,
          &workspace,
          &run,
          [](const GroupedGemmShape& s) { return remark_on(s.each.type); },
          {&weight_form, &pack_weight}};
}

}  // namespace konclave::onednn
