#include "tiles/cpu_kernels.hpp"

#include <cpuid.h>

#include <sys/syscall.h>
#include <unistd.h>

namespace konclave::tiles {

namespace {

bool has_vectors() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bf16");
}

bool has_tiles() {
  constexpr unsigned kBf16 = 1U << 22, kTile = 1U << 24;  // of edx
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kBf16) != 0 &&
         (edx & kTile) != 0;
}

/// Linux keeps the tiles of those processes only that asked for it.
bool is_permitted() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

std::vector<CpuKernels> find() {
  std::vector<CpuKernels> found;
  if (!has_vectors()) return found;
  const bool tiles = has_tiles(), permitted = tiles && is_permitted();
  if (permitted) found.push_back({&amx_kernels(), ""});
  found.push_back({&dot_kernels(),
                   tiles
                       ? "AVX-512 in place of AMX, whose tiles the operating system does not permit"
                       : "AVX-512 in place of AMX, which this CPU does not have"});
  return found;
}

}  // namespace

const std::vector<CpuKernels>& cpu_kernels() {
  static const std::vector<CpuKernels> kFound = find();
  return kFound;
}

std::string why_no_kernels() {
  return cpu_kernels().empty() ? "this CPU has no products of bf16 (AMX or AVX-512's)" : "";
}

}  // namespace konclave::tiles
