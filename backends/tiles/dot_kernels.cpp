#include "tiles/dot_products.hpp"
#include "tiles/kernels.hpp"

namespace konclave::tiles {

const Kernels& dot_kernels() {
  static constexpr Kernels kKernels = kernels_by<DotProducts>();
  return kKernels;
}

}  // namespace konclave::tiles
