#include "amx/kernels.hpp"

#include "amx/amx_tiles.hpp"
#include "amx/block_product.hpp"

namespace konclave::amx {

const Kernels& amx_kernels() {
  static constexpr Kernels kKernels = kernels_of<AmxTiles>();
  return kKernels;
}

}  // namespace konclave::amx
