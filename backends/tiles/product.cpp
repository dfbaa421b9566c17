#include "tiles/product.hpp"

#include "ops/elementwise.hpp"
#include "ops/product.hpp"
#include "tensor/host_copy.hpp"
#include "tiles/packing.hpp"

#include <algorithm>
#include <vector>

namespace konclave::tiles {

namespace {

/// Rows that a sum over rows takes at a time: bounds the workspace.
constexpr std::int64_t kChunkRows = 1024;
/// Bytes of a left factor that stay in the second cache while panels come and go.
constexpr std::int64_t kLeftBytes = 1 << 20;

std::uint16_t* elements_of(const AnyView& workspace) {
  return static_cast<std::uint16_t*>(workspace.data());
}

/// Blocks of rows that tiles load where they are: all but a last one with fewer rows, and none
/// when a row does not end with a step.
std::int64_t blocks_in_place(std::int64_t rows, std::int64_t inner) {
  return inner % kBlock == 0 ? rows / kBlock : 0;
}

/// A sum that is rounded at its end cannot be cut.
std::int64_t chunk_rows(DType result, std::int64_t rows) {
  return result == DType::fp32 ? std::min(rows, kChunkRows) : rows;
}

bool is_aligned(const AnyView& c) {
  constexpr std::uintptr_t kLine = 64;
  return reinterpret_cast<std::uintptr_t>(c.data()) % kLine == 0 &&
         static_cast<std::size_t>(c.extent(1)) * sizeof(float) % kLine == 0;
}

/// A gradient of a weight is large and not read soon. What other products give is.
Store store_of(const GemmShape& shape, bool accumulate, const AnyView& c) {
  if (shape.result == DType::bf16) return accumulate ? Store::bf16_added : Store::bf16;
  if (accumulate) return Store::fp32_added;
  const bool streamed = shape.kind == GemmKind::weight_gradient && is_aligned(c);
  return streamed ? Store::fp32_streamed : Store::fp32;
}

/// The result of a product, written by blocks.
BlockProduct result_of(const AnyView& c, std::int64_t steps) {
  BlockProduct product;
  product.steps = steps;
  product.c = c.data();
  product.stride = product.columns = c.extent(1);
  product.rows = c.extent(0);
  product.first_copied = blocks_of(product.rows);
  product.end_block = blocks_of(product.rows);
  product.end_panel = blocks_of(product.columns);
  return product;
}

/// Blocks of rows [begin_block, end_block), some at a time so that the second cache holds them.
void run_blocks(void (*kernel)(const BlockProduct&), BlockProduct product) {
  const std::int64_t end = product.end_block;
  const std::int64_t most = std::max<std::int64_t>(
      1, kLeftBytes / (product.steps * kBlockSize * static_cast<std::int64_t>(sizeof(Bf16))));
  for (; product.begin_block < end; product.begin_block = product.end_block) {
    product.end_block = std::min(end, product.begin_block + most);
    kernel(product);
  }
}

/// All of a product: each thread takes neighbouring panels, and where there are more threads than
/// panels a part of the rows as well. No sum depends on it.
void run(const ExecSpace& exec, void (*kernel)(const BlockProduct&), const BlockProduct& product) {
  const std::int64_t panels = product.end_panel, blocks = product.end_block;
  const std::int64_t threads = std::max(1, exec.concurrency());
  const std::int64_t across = std::min(threads, panels);
  const std::int64_t down = std::min(blocks, threads / across);
  Kokkos::parallel_for("konclave::tiles::multiply", Range(exec, 0, across * down),
                       [=](std::int64_t part) {
                         BlockProduct mine = product;
                         const std::int64_t i = part / across, j = part % across;
                         mine.begin_panel = panels * j / across;
                         mine.end_panel = panels * (j + 1) / across;
                         mine.begin_block = blocks * i / down;
                         mine.end_block = blocks * (i + 1) / down;
                         run_blocks(kernel, mine);
                       });
}

/// c (+)= a W^T or a W.
void multiply_rows(const ExecSpace& exec, const Kernels& kernels, const GemmShape& shape,
                   const ops::Product& product, const RightPanels& right, std::uint16_t* scratch) {
  const BitRows a(product.a);
  const std::int64_t steps = blocks_of(a.columns);
  BlockProduct blocks = result_of(product.c, steps);
  blocks.first_copied = blocks_in_place(a.rows, a.columns);
  blocks.in_place = LeftBlocks::row_major(a.data, a.columns);
  blocks.copied = LeftBlocks::packed(scratch, steps);
  blocks.right = right;
  Kokkos::parallel_for("konclave::tiles::copy_rows",
                       Range(exec, blocks.first_copied, blocks_of(a.rows)), [=](std::int64_t b) {
                         std::uint16_t* const to =
                             scratch + (b - blocks.first_copied) * blocks.copied.block_stride;
                         for (std::int64_t s = 0; s < steps; ++s) {
                           order_block(nullptr, a, b * kBlock, s * kBlock, to + s * kBlockSize);
                         }
                       });
  run(exec, kernels.multiply[static_cast<int>(store_of(shape, product.accumulate, product.c))],
      blocks);
}

/// c (+)= a^T b, a sum over their rows.
void multiply_sum(const ExecSpace& exec, const Kernels& kernels, const GemmShape& shape,
                  const ops::Product& product, std::uint16_t* scratch) {
  const BitRows a(product.a), b(product.b);
  const std::int64_t steps = blocks_of(a.rows), down = blocks_of(a.columns),
                     across = blocks_of(b.columns), of_line = steps * kBlockSize;
  std::uint16_t *const left = scratch, *const right = scratch + down * of_line;
  const BlockOrder order_left = kernels.left_of_columns, order_right = kernels.right_of_rows;
  Kokkos::parallel_for("konclave::tiles::pack_sum", Range(exec, 0, steps), [=](std::int64_t s) {
    for (std::int64_t i = 0; i < down; ++i) {
      order_block(order_left, a, s * kBlock, i * kBlock, left + i * of_line + s * kBlockSize);
    }
    for (std::int64_t j = 0; j < across; ++j) {
      order_block(order_right, b, s * kBlock, j * kBlock, right + j * of_line + s * kBlockSize);
    }
  });
  BlockProduct blocks = result_of(product.c, steps);
  blocks.in_place = LeftBlocks::packed(left, steps);
  blocks.right = {right, of_line, right + across * of_line};
  run(exec, kernels.multiply[static_cast<int>(store_of(shape, product.accumulate, product.c))],
      blocks);
}

/// A sum over rows, chunk by chunk.
void multiply_chunks(const ExecSpace& exec, const Kernels& kernels, const GemmShape& shape,
                     const ops::Product& product, std::uint16_t* scratch) {
  const std::int64_t rows = product.inner(), step = chunk_rows(shape.result, rows);
  if (rows == 0 && !product.accumulate) ops::fill_zero(exec, product.c);
  for (std::int64_t first = 0; first < rows; first += step) {
    multiply_sum(exec, kernels, shape, ops::part_of(product, first, std::min(step, rows - first)),
                 scratch);
  }
}

}  // namespace

std::size_t product_workspace(const GemmShape& shape, std::int64_t rows) {
  std::int64_t blocks = 0;
  if (shape.kind == GemmKind::weight_gradient) {
    blocks =
        blocks_of(chunk_rows(shape.result, rows)) * (blocks_of(shape.out) + blocks_of(shape.in));
  } else {
    const int inner = shape.kind == GemmKind::forward ? shape.in : shape.out;
    // Of a group's rows any part may be one expert's.
    blocks = (inner % kBlock == 0 ? std::min<std::int64_t>(rows, 1) : blocks_of(rows)) *
             blocks_of(inner);
  }
  return static_cast<std::size_t>(blocks) * kBlockSize * sizeof(Bf16);
}

void multiply(const ExecSpace& exec, const Kernels& kernels, const GemmShape& shape,
              const GemmOperands& operands) {
  const bool of_weight = shape.kind == GemmKind::weight_gradient;
  const ops::Product product = ops::product_of(
      shape, operands.a, of_weight ? operands.b : operands.weight->weight, operands.c);
  if (product.c.empty()) return;
  std::uint16_t* const scratch = elements_of(operands.workspace);
  if (of_weight) {
    multiply_chunks(exec, kernels, shape, product, scratch);
  } else {
    multiply_rows(exec, kernels, shape, product, panels_of(shape, *operands.weight), scratch);
  }
}

void multiply(const ExecSpace& exec, const Kernels& kernels, const GroupedGemmShape& shape,
              const GroupedGemmOperands& operands) {
  const bool of_weight = shape.each.kind == GemmKind::weight_gradient;
  const std::vector<int> first = to_host(exec, operands.offsets);
  require(static_cast<int>(first.size()) == shape.experts + 1,
          "a grouped product needs an offset for each expert and one more");
  for (int e = 0; e < shape.experts; ++e) {
    const std::int64_t rows = first[e + 1] - first[e];
    GemmOperands one;
    one.a = operands.a.slice(first[e], rows);
    one.workspace = operands.workspace;
    if (of_weight) {
      one.b = operands.b.slice(first[e], rows);
      one.c = operands.c.slice(e, 1).reshape(shape.each.out, shape.each.in);
      multiply(exec, kernels, shape.each, one);
    } else if (rows > 0) {
      const PreparedWeight weight = operands.weight->matrix(e);
      one.weight = &weight;
      one.c = operands.c.slice(first[e], rows);
      multiply(exec, kernels, shape.each, one);
    }
  }
}

}  // namespace konclave::tiles
