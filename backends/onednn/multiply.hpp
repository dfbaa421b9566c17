#pragma once

#include "ops/product.hpp"

#include <cstdint>
#include <string>

namespace konclave::onednn {

/// "", or why a product of this shape is refused.
std::string refuses_product(const GemmShape& shape);

/// Says so when operands are widened (see `multiply`); else "".
std::string remark_on(DType type);

/// Bytes of scratch memory for a product of `rows` rows.
std::size_t product_workspace(const GemmShape& shape, std::int64_t rows);

/// The weight as `multiply` wants it: on a CPU without products of bf16, the same in fp32 for all
/// kinds of products; otherwise as it is stored.
WeightForm weight_form(const GemmShape& shape);
void pack_weight(const ExecSpace& exec, const GemmShape& shape, const AnyIn& rows,
                 std::int64_t first, const AnyView& to);
/// The factor that a prepared weight stands for, with the extents of the weight.
AnyIn prepared_factor(const GemmShape& shape, const PreparedWeight& weight);

/// One product: bf16 operands, sums in fp32, rounded once to the type of the result. Where the
/// CPU multiplies bf16 that is one primitive; elsewhere the operands are widened, some rows at a
/// time, and sgemm multiplies them. Waits for `exec`, and only its conversions are asynchronous.
void multiply(const ExecSpace& exec, const ops::Product& product, const AnyView& workspace);

}  // namespace konclave::onednn
