#include "tiles/amx_tiles.hpp"
#include "tiles/block_product.hpp"
#include "tiles/kernels.hpp"

namespace konclave::tiles {

const Kernels& amx_kernels() {
  static constexpr Kernels kKernels = kernels_of<AmxTiles>();
  return kKernels;
}

}  // namespace konclave::tiles
