#pragma once

#include "ops/product.hpp"

#include <cstddef>

/// Products by primitives that are made for a few numbers of rows only. Rows of an expert are
/// others in each step, and to generate the code of a primitive takes longer than the product of a
/// few hundred rows: so rows are cut into pieces of powers of two, and what is left over is padded
/// with zeros to the smallest of them.
namespace konclave::onednn {

/// Bytes of scratch memory for `multiply_in_pieces`.
std::size_t pieces_workspace(const GemmShape& shape);

/// See `matmul`; any number of rows, none included.
void multiply_in_pieces(const ops::Product& product, const AnyView& workspace);

}  // namespace konclave::onednn
