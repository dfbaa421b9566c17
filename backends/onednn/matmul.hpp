#pragma once

#include "ops/product.hpp"

namespace konclave::onednn {

/// True when this CPU multiplies bf16 as it is (AVX-512 and later).
bool has_bf16_products();

/// One product by a matmul primitive, sums in fp32. Generating a primitive's code takes near to a
/// millisecond, so each is kept for the extents and types that it was made for. No extent may
/// be 0. The data must be ready; done when it returns.
void matmul(const ops::Product& product);

}  // namespace konclave::onednn
