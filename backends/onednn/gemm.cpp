#include "onednn/multiply.hpp"
#include "onednn/offers.hpp"

namespace konclave::onednn {

namespace {

void run(const ExecSpace& exec, const GemmShape& shape, const GemmOperands& operands) {
  const AnyIn b = shape.kind == GemmKind::weight_gradient
                      ? operands.b
                      : prepared_factor(shape, *operands.weight);
  multiply(exec, ops::product_of(shape, operands.a, b, operands.c), operands.workspace);
}

}  // namespace

GemmOffer gemm_offer() {
  return {"onednn",
          &refuses_product,
          &product_workspace,
          &run,
          [](const GemmShape& s) { return remark_on(s.type); },
          {&weight_form, &pack_weight}};
}

}  // namespace konclave::onednn
