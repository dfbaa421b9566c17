#include "simd/kernels.hpp"

namespace konclave::simd {

const Kernels& kernels() {
  static const Kernels* const kBest = avx512_kernels() ? avx512_kernels() : &generic_kernels();
  return *kBest;
}

bool cpu_multiplies_bf16() {
#ifdef __x86_64__
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

}  // namespace konclave::simd
