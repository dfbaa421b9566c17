#include "ops/product.hpp"

#include "tensor/host_copy.hpp"

#include <string>

namespace konclave::ops {

namespace {

bool is_matrix(const AnyIn& view, std::int64_t rows, std::int64_t columns) {
  return view.rank() == 2 && view.extent(0) == rows && view.extent(1) == columns;
}

}  // namespace

Product product_of(const GemmShape& shape, const AnyIn& a, const AnyIn& b, const AnyView& c) {
  const bool forward = shape.kind == GemmKind::forward;
  const bool of_weight = shape.kind == GemmKind::weight_gradient;
  const std::int64_t rows = a.extent(0);
  const bool fits = is_matrix(a, rows, forward ? shape.in : shape.out) &&
                    is_matrix(b, of_weight ? rows : shape.out, shape.in) &&
                    is_matrix(c, of_weight ? shape.out : rows, forward ? shape.out : shape.in);
  require(fits, describe(shape) + " does not fit " + a.describe() + ", " + b.describe() + " and " +
                    c.describe());
  return {a, b, c, of_weight, forward, shape.accumulate};
}

Product part_of(const Product& product, std::int64_t first, std::int64_t count) {
  Product part = product;
  part.a = product.a.slice(first, count);
  if (product.transpose_a) {
    part.b = product.b.slice(first, count);
    part.accumulate = product.accumulate || first > 0;
  } else {
    part.c = product.c.slice(first, count);
  }
  return part;
}

std::vector<Product> products_of(const ExecSpace& exec, const GroupedGemmShape& shape,
                                 const View1<const int>& offsets, const AnyIn& a, const AnyIn& b,
                                 const AnyView& c) {
  const std::vector<int> first = to_host(exec, offsets);
  require(static_cast<int>(first.size()) == shape.experts + 1,
          "a grouped product needs an offset for each expert and one more");
  std::vector<Product> products;
  for (int e = 0; e < shape.experts; ++e) {
    const int rows = first[e + 1] - first[e];
    const AnyIn a_rows = a.slice(first[e], rows);
    if (shape.each.kind == GemmKind::weight_gradient) {
      products.push_back(product_of(shape.each, a_rows, b.slice(first[e], rows),
                                    c.slice(e, 1).reshape(shape.each.out, shape.each.in)));
    } else if (rows > 0) {
      products.push_back(product_of(shape.each, a_rows,
                                    b.slice(e, 1).reshape(shape.each.out, shape.each.in),
                                    c.slice(first[e], rows)));
    }
  }
  return products;
}

}  // namespace konclave::ops
