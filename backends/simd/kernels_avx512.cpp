#include "simd/kernels.hpp"
#include "simd/tile.hpp"

namespace konclave::simd {

const Kernels* avx512_kernels() {
  constexpr int kWidth = 16;
  static constexpr Kernels kKernels{
      2 * kWidth,
      12,
      12,
      {nullptr, tile<kWidth, 2, 1>, tile<kWidth, 2, 2>, tile<kWidth, 2, 3>, tile<kWidth, 2, 4>,
       tile<kWidth, 2, 5>, tile<kWidth, 2, 6>, tile<kWidth, 2, 7>, tile<kWidth, 2, 8>,
       tile<kWidth, 2, 9>, tile<kWidth, 2, 10>, tile<kWidth, 2, 11>, tile<kWidth, 2, 12>},
      {nullptr, tile<kWidth, 1, 1>, tile<kWidth, 1, 2>, tile<kWidth, 1, 3>, tile<kWidth, 1, 4>,
       tile<kWidth, 1, 5>, tile<kWidth, 1, 6>, tile<kWidth, 1, 7>, tile<kWidth, 1, 8>,
       tile<kWidth, 1, 9>, tile<kWidth, 1, 10>, tile<kWidth, 1, 11>, tile<kWidth, 1, 12>},
      "AVX-512"};
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                 __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
             ? &kKernels
             : nullptr;
}

}  // namespace konclave::simd
