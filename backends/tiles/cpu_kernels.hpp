#pragma once

#include "tiles/kernels.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace konclave::tiles {

/// A set of kernels that the CPU at hand has what it takes for.
struct CpuKernels {
  const Kernels* kernels;
  std::string_view remark;  ///< what a user should know; "" for AMX's tiles
};
/// All of them, the fastest first: AMX's tiles, if the operating system permits them, and AVX-512's
/// products of pairs of bf16. The first call asks the kernel for the tiles' memory, once for all
/// threads of the process.
const std::vector<CpuKernels>& cpu_kernels();

/// "", or why there are none.
std::string why_no_kernels();

}  // namespace konclave::tiles
