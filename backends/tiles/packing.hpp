#pragma once

#include "ops/gemm.hpp"
#include "tiles/kernels.hpp"

#include <algorithm>
#include <cstdint>

namespace konclave::tiles {

/// Blocks that an extent takes up, the last with zeros.
inline std::int64_t blocks_of(std::int64_t extent) { return (extent + kBlock - 1) / kBlock; }

/// Row-major bf16.
struct BitRows {
  const std::uint16_t* data;
  std::int64_t rows, columns;

  explicit BitRows(const AnyIn& view)
      : data(static_cast<const std::uint16_t*>(view.data())),
        rows(view.extent(0)),
        columns(view.extent(1)) {}
};

/// The block of `from` at (row, column), in another order or as it is (null), with zeros where
/// `from` ends.
void order_block(BlockOrder order, const BitRows& from, std::int64_t row, std::int64_t column,
                 std::uint16_t* to);

/// The right factor W or W^T of forward and data_gradient, as RightPanels with the stride of the
/// inner extent.
WeightForm weight_form(const GemmShape& shape);
/// See WeightPacking.
void pack_weight(const ExecSpace& exec, const Kernels& kernels, const GemmShape& shape,
                 const AnyIn& rows, std::int64_t first, const AnyView& to);
/// What a prepared matrix holds, in whole or in part.
RightPanels panels_of(const GemmShape& shape, const PreparedWeight& weight);

}  // namespace konclave::tiles
