#include "tiles/permission.hpp"

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

std::string ask() {
  if (!has_vectors() || !has_tiles()) return "this CPU has no tiles for bf16 (AMX)";
  if (!is_permitted()) return "the operating system does not permit the tiles of this CPU (AMX)";
  return "";
}

}  // namespace

std::string why_no_tiles() {
  static const std::string kAnswer = ask();
  return kAnswer;
}

}  // namespace konclave::tiles
