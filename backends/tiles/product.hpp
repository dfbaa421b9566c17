#pragma once

#include "ops/gemm.hpp"
#include "ops/grouped_gemm.hpp"
#include "tiles/kernels.hpp"

#include <cstdint>

namespace konclave::tiles {

/// Bytes of scratch memory for a product of `rows` rows.
std::size_t product_workspace(const GemmShape& shape, std::int64_t rows);

/// Products of a linear layer: operands in bf16, sums in fp32, rounded once to the type of the
/// result. Weights come as weight_form says. Numbers too small for a normalised fp32 count as
/// zero: tiles know no others. Asynchronous on `exec`; with experts, waits for their offsets.
void multiply(const ExecSpace& exec, const Kernels& kernels, const GemmShape& shape,
              const GemmOperands& operands);
void multiply(const ExecSpace& exec, const Kernels& kernels, const GroupedGemmShape& shape,
              const GroupedGemmOperands& operands);

}  // namespace konclave::tiles
