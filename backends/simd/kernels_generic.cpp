#include "simd/kernels.hpp"
#include "simd/tile.hpp"

namespace konclave::simd {

const Kernels& generic_kernels() {
  constexpr int kWidth = 8;
  static constexpr Kernels kKernels{
      2 * kWidth,
      6,
      12,
      {nullptr, tile<kWidth, 2, 1>, tile<kWidth, 2, 2>, tile<kWidth, 2, 3>, tile<kWidth, 2, 4>,
       tile<kWidth, 2, 5>, tile<kWidth, 2, 6>},
      {nullptr, tile<kWidth, 1, 1>, tile<kWidth, 1, 2>, tile<kWidth, 1, 3>, tile<kWidth, 1, 4>,
       tile<kWidth, 1, 5>, tile<kWidth, 1, 6>, tile<kWidth, 1, 7>, tile<kWidth, 1, 8>,
       tile<kWidth, 1, 9>, tile<kWidth, 1, 10>, tile<kWidth, 1, 11>, tile<kWidth, 1, 12>},
      "vectors of 8 floats"};
  return kKernels;
}

}  // namespace konclave::simd
