#include "simd/kernels.hpp"

namespace konclave::simd {

const Kernels* avx512_kernels() { return nullptr; }

}  // namespace konclave::simd
