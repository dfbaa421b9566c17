#pragma once

#include "ops/backend_list.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>
#include <vector>

/// The offers of backend `reference`, which here want a weight of bf16 packed in one form for each
/// kind of product that uses it, and read nothing else of it.
namespace konclave::packing_backend {

inline std::int64_t padded(std::int64_t rows) {
  constexpr std::int64_t kRows = WeightPacking::kRows;
  return (rows + kRows - 1) / kRows * kRows;
}

/// By rows, or by columns with zeros behind each.
inline WeightForm form(const GemmShape& shape) {
  if (shape.type != DType::bf16 || shape.kind == GemmKind::weight_gradient) return {};
  if (shape.kind == GemmKind::forward) {
    return {"test.rows", DType::bf16, std::int64_t{shape.out} * shape.in};
  }
  return {"test.columns", DType::bf16, padded(shape.out) * shape.in};
}

/// Where element (row, column) of a matrix of `rows` is in its form.
inline std::size_t place(const GemmShape& shape, std::int64_t rows, std::int64_t row,
                         std::int64_t column) {
  return static_cast<std::size_t>(shape.kind == GemmKind::forward ? row * shape.in + column
                                                                  : column * padded(rows) + row);
}

inline void pack(const ExecSpace& exec, const GemmShape& shape, const AnyIn& rows,
                 std::int64_t first, const AnyView& to) {
  const std::vector<Bf16> from = to_host(exec, rows.flat<Bf16>());
  std::vector<Bf16> packed = to_host(exec, to.flat<Bf16>());
  const std::int64_t count = rows.extent(0), end = first + count;
  const std::int64_t written =
      shape.kind == GemmKind::data_gradient && end == shape.out ? padded(end) : end;
  for (std::int64_t row = first; row < written; ++row) {
    for (std::int64_t column = 0; column < shape.in; ++column) {
      const auto source = static_cast<std::size_t>((row - first) * shape.in + column);
      packed[place(shape, shape.out, row, column)] = row < end ? from[source] : Bf16(0.0F);
    }
  }
  to_device(exec, packed, to.flat<Bf16>());
}

/// The weight again, in memory of the arena.
inline AnyIn unpacked(const ExecSpace& exec, Arena& arena, const GemmShape& shape,
                      const PreparedWeight& weight) {
  if (form(shape).as_stored()) return weight.weight;
  const std::int64_t matrices = weight.packed.extent(0), of_form = weight.packed.extent(1);
  const std::int64_t rows = of_form / shape.in;  // padded by columns
  const std::vector<Bf16> packed = to_host(exec, weight.packed.flat<Bf16>());
  std::vector<Bf16> values;
  for (std::int64_t matrix = 0; matrix < matrices; ++matrix) {
    for (std::int64_t row = weight.first_row; row < weight.first_row + shape.out; ++row) {
      for (std::int64_t column = 0; column < shape.in; ++column) {
        values.push_back(
            packed[static_cast<std::size_t>(matrix * of_form) + place(shape, rows, row, column)]);
      }
    }
  }
  const View1<Bf16> made = upload(exec, arena, values);
  return AnyIn(DType::bf16, made.data(), weight.weight.extents(), weight.weight.rank());
}

inline const OpTable& reference() {
  static const OpTable table = [] {
    const OpTable all = built_backends();
    OpTable last;
    last.gemm = {all.gemm.back()};
    last.grouped_gemm = {all.grouped_gemm.back()};
    last.attention = all.attention;
    return last;
  }();
  return table;
}

template <typename Operands>
void run(const ExecSpace& exec, const GemmShape& shape, Operands operands, auto&& run_plain) {
  MemoryAccount account;
  Arena arena(account, MemoryClass::buffers, "unpacked");
  PreparedWeight stored;
  if (operands.weight != nullptr && shape.kind != GemmKind::weight_gradient) {
    stored.weight = unpacked(exec, arena, shape, *operands.weight);
    operands.weight = &stored;
  }
  run_plain(operands);
}

inline OpTable table() {
  OpTable table = reference();
  table.gemm.front().packing = {&form, &pack};
  table.gemm.front().run = [](const ExecSpace& exec, const GemmShape& shape,
                              const GemmOperands& operands) {
    run(exec, shape, operands,
        [&](const GemmOperands& plain) { reference().gemm.front().run(exec, shape, plain); });
  };
  table.grouped_gemm.front().packing = {&form, &pack};
  table.grouped_gemm.front().run = [](const ExecSpace& exec, const GroupedGemmShape& shape,
                                      const GroupedGemmOperands& operands) {
    run(exec, shape.each, operands, [&](const GroupedGemmOperands& plain) {
      reference().grouped_gemm.front().run(exec, shape, plain);
    });
  };
  return table;
}

}  // namespace konclave::packing_backend
