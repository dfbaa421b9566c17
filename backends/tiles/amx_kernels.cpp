#include "tiles/amx_tiles.hpp"
#include "tiles/kernels.hpp"
#include "tiles/tile_sums.hpp"

namespace konclave::tiles {

const Kernels& amx_kernels() {
  static constexpr Kernels kKernels = kernels_of<AmxTiles>();
  return kKernels;
}

}  // namespace konclave::tiles
