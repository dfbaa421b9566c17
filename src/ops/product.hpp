#pragma once

#include "ops/gemm.hpp"
#include "ops/grouped_gemm.hpp"

#include <cstdint>
#include <vector>

namespace konclave::ops {

/// One product of a linear layer as a matrix library sees it, c (+)= op(a) op(b):
///
///   forward          y  = x  W^T     a = x,              b = W transposed
///   data_gradient    dx = dy W       a = dy,             b = W
///   weight_gradient  dW = dy^T x     a = dy transposed,  b = x
struct Product {
  AnyIn a, b;
  AnyView c;
  bool transpose_a = false, transpose_b = false, accumulate = false;

  /// Extent that is summed over.
  std::int64_t inner() const { return a.extent(transpose_a ? 0 : 1); }
};

/// `b` is the weight, as stored or in a backend's form of the same extents, or x for
/// weight_gradient. Throws when an extent does not fit the shape.
Product product_of(const GemmShape& shape, const AnyIn& a, const AnyIn& b, const AnyView& c);

/// The part of a product that `count` rows of a from `first` on give: rows of c, or, where rows are
/// summed over, a part of the sum, which is added to what the parts before it gave.
Product part_of(const Product& product, std::int64_t first, std::int64_t count);

/// The products of a grouped one, one for each expert with work to do: all of them for
/// weight_gradient (an expert without rows has a gradient of zero), those with rows otherwise.
/// Copies the offsets to the host, so it waits for `exec`.
std::vector<Product> products_of(const ExecSpace& exec, const GroupedGemmShape& shape,
                                 const View1<const int>& offsets, const AnyIn& a, const AnyIn& b,
                                 const AnyView& c);

}  // namespace konclave::ops
