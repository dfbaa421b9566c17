#pragma once

#include "ops/matrix.hpp"
#include "ops/product.hpp"

#include <cstdint>

namespace konclave::simd {

/// Bytes of scratch memory for a product of `rows` rows.
std::size_t product_workspace(const GemmShape& shape, std::int64_t rows);

/// One product of a linear layer: operands in bf16 or fp32, sums in fp32, rounded once to the type
/// of the result.
void multiply(const ExecSpace& exec, const ops::Product& product, const AnyView& workspace);

}  // namespace konclave::simd
