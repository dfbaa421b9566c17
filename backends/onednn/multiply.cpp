#include "onednn/multiply.hpp"

#include "onednn/matmul.hpp"
#include "onednn/pieces.hpp"
#include "onednn/sgemm.hpp"
#include "ops/elementwise.hpp"
#include "ops/matrix.hpp"

#include <algorithm>

namespace konclave::onednn {

namespace {

using ops::Matrix;
using ops::Product;
using Workspace = ops::Workspace<float>;

/// Rows that are widened at a time: bounds the workspace, and lets sgemm read the other factor
/// from memory seldom enough.
constexpr std::int64_t kChunkRows = 512;

/// True when operands of this type are widened before they are multiplied.
bool is_widened(DType type) { return type == DType::bf16 && !has_bf16_products(); }

/// True when no product of the library takes these types as they are.
bool is_converted(DType type, DType result) {
  return is_widened(type) || (type == DType::fp32 && result == DType::bf16);
}

/// `count` rows of a factor of either type, in fp32.
Matrix<const float> wide_rows(const ExecSpace& exec, const AnyIn& factor, std::int64_t first,
                              std::int64_t count, Workspace& workspace) {
  const AnyIn rows = factor.slice(first, count);
  if (rows.type() == DType::fp32) return ops::matrix_of<float>(rows);
  return ops::widened<Bf16>(exec, ops::matrix_of<Bf16>(rows), workspace);
}

/// c (+)= a op(b), the rows of a and c in chunks; b is wide already.
void multiply_rows(const ExecSpace& exec, const Product& product, Workspace workspace) {
  const ops::Factor<float> b{ops::matrix_of<float>(product.b), product.transpose_b};
  const std::int64_t rows = product.c.extent(0);
  for (std::int64_t first = 0; first < rows; first += kChunkRows) {
    Workspace chunk = workspace;
    const std::int64_t count = std::min(kChunkRows, rows - first);
    const AnyView c = product.c.slice(first, count);
    const ops::Factor<float> a{wide_rows(exec, product.a, first, count, chunk)};
    if (c.type() == DType::fp32) {
      sgemm(exec, 1, a, b, product.accumulate ? 1 : 0, ops::matrix_of<float>(c));
    } else {
      const Matrix<float> wide = chunk.take(count, c.extent(1));
      sgemm(exec, 1, a, b, 0, wide);
      ops::round(exec, wide, ops::matrix_of<Bf16>(c), product.accumulate);
    }
  }
}

/// c (+)= a^T b, a sum over the rows of a and b, which come in chunks.
void multiply_sum(const ExecSpace& exec, const Product& product, Workspace workspace) {
  const bool in_place = product.c.type() == DType::fp32;
  const Matrix<float> c = in_place ? ops::matrix_of<float>(product.c)
                                   : workspace.take(product.c.extent(0), product.c.extent(1));
  float beta = in_place && product.accumulate ? 1 : 0;
  const std::int64_t rows = product.inner();
  for (std::int64_t first = 0; first < rows; first += kChunkRows) {
    Workspace chunk = workspace;
    const std::int64_t count = std::min(kChunkRows, rows - first);
    const auto a = wide_rows(exec, product.a, first, count, chunk);
    const auto b = wide_rows(exec, product.b, first, count, chunk);
    sgemm(exec, 1, ops::transposed(a), {b}, beta, c);
    beta = 1;
  }
  if (!in_place) ops::round(exec, c, ops::matrix_of<Bf16>(product.c), product.accumulate);
}

}  // namespace

std::string remark_on(DType type) {
  return is_widened(type) ? "bf16 operands are widened to fp32: this CPU has no products of bf16"
                          : "";
}

std::string refuses_product(const GemmShape& shape) {
  if (!kHostAccessible) return "needs host memory";
  if (shape.type == DType::fp64 || shape.result == DType::fp64) return "has no products in fp64";
  return "";
}

std::size_t product_workspace(const GemmShape& shape, std::int64_t rows) {
  if (!is_converted(shape.type, shape.result)) {
    return shape.type == DType::fp32 ? 0 : pieces_workspace(shape);
  }
  const std::int64_t chunk = std::min(rows, kChunkRows);
  std::int64_t elements = Workspace::piece(chunk, shape.in) + Workspace::piece(chunk, shape.out);
  if (shape.kind == GemmKind::weight_gradient && shape.result != DType::fp32) {
    elements += Workspace::piece(shape.out, shape.in);
  }
  return static_cast<std::size_t>(elements) * sizeof(float);
}

WeightForm weight_form(const GemmShape& shape) {
  if (!is_widened(shape.type)) return {};
  return {"onednn.fp32", DType::fp32, std::int64_t{shape.out} * shape.in};
}

void pack_weight(const ExecSpace& exec, const GemmShape& shape, const AnyIn& rows,
                 std::int64_t first, const AnyView& to) {
  ops::cast(exec, rows, to.reshape(shape.out, shape.in).slice(first, rows.extent(0)));
}

AnyIn prepared_factor(const GemmShape& shape, const PreparedWeight& weight) {
  const WeightForm form = weight_form(shape);
  if (form.as_stored()) return weight.weight;
  require(weight.layout == form.layout, "a weight of " + describe(shape) + " was not prepared");
  const auto* const wide = static_cast<const float*>(weight.packed.data());
  const AnyIn& stored = weight.weight;
  return {DType::fp32, wide + weight.first_row * shape.in, stored.extents(), stored.rank()};
}

void multiply(const ExecSpace& exec, const Product& product, const AnyView& workspace) {
  if (product.c.empty()) return;
  if (product.inner() == 0) {
    if (!product.accumulate) ops::fill_zero(exec, product.c);
    return;
  }
  const DType type = product.a.type();
  if (is_converted(type, product.c.type())) {
    if (product.transpose_a) {
      multiply_sum(exec, product, Workspace(workspace));
    } else {
      multiply_rows(exec, product, Workspace(workspace));
    }
  } else if (type == DType::fp32) {
    sgemm(exec, 1, {ops::matrix_of<float>(product.a), product.transpose_a},
          {ops::matrix_of<float>(product.b), product.transpose_b}, product.accumulate ? 1 : 0,
          ops::matrix_of<float>(product.c));
  } else {
    fence(exec, "konclave::onednn::multiply");
    multiply_in_pieces(product, workspace);
  }
}

}  // namespace konclave::onednn
