#include "tiles/attention_kernels.hpp"

#include "tiles/attention_softmax.hpp"
#include "tiles/dot_products.hpp"

namespace konclave::tiles {

const AttentionKernels& attention_kernels() {
  static constexpr AttentionKernels kKernels = attention_kernels_by<DotProducts>();
  return kKernels;
}

}  // namespace konclave::tiles
