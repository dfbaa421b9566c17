#pragma once

// The only file that includes Kokkos or looks at its version (3.4 to 5.x).

#include <Kokkos_Core.hpp>

#include <cstdint>
#include <string>

#if KOKKOS_VERSION < 30400
#error "Konclave needs Kokkos 3.4 or later"
#endif

// KOKKOS_IF_ON_HOST came with 3.6. A GPU build with an older Kokkos is refused.
#ifndef KOKKOS_IF_ON_HOST
#if defined(KOKKOS_ENABLE_CUDA) || defined(KOKKOS_ENABLE_HIP) || defined(KOKKOS_ENABLE_SYCL)
#error "GPU builds need Kokkos 3.7 or later"
#endif
#define KONCLAVE_STRIP_PARENS(...) __VA_ARGS__
#define KOKKOS_IF_ON_HOST(CODE) \
  { KONCLAVE_STRIP_PARENS CODE }
#define KOKKOS_IF_ON_DEVICE(CODE) \
  {}
#endif

namespace konclave {

using ExecSpace = Kokkos::DefaultExecutionSpace;
using MemSpace = ExecSpace::memory_space;
using HostSpace = Kokkos::DefaultHostExecutionSpace::memory_space;
using Team = Kokkos::TeamPolicy<ExecSpace>;
using Range = Kokkos::RangePolicy<ExecSpace, Kokkos::IndexType<std::int64_t>>;

/// True when host code may touch the memory of ExecSpace.
inline constexpr bool kHostAccessible =
    Kokkos::SpaceAccessibility<Kokkos::HostSpace, MemSpace>::accessible;

/// Mathematical functions: in Kokkos::Experimental until 3.6, in Kokkos from 3.7 on.
namespace math {
#if KOKKOS_VERSION < 30700
using Kokkos::Experimental::cos;
using Kokkos::Experimental::exp;
using Kokkos::Experimental::log;
using Kokkos::Experimental::sin;
using Kokkos::Experimental::sqrt;
#else
using Kokkos::cos;
using Kokkos::exp;
using Kokkos::log;
using Kokkos::sin;
using Kokkos::sqrt;
#endif
}  // namespace math

/// Waits for all work of `exec`; the label shows in profiles (labels came with 3.5).
template <typename Space> void fence(const Space& exec, [[maybe_unused]] const char* label) {
#if KOKKOS_VERSION < 30500
  exec.fence();
#else
  exec.fence(label);
#endif
}

/// A named region in Kokkos Tools profiles.
class Region {
 public:
  explicit Region(const std::string& name) { Kokkos::Profiling::pushRegion(name); }
  ~Region() { Kokkos::Profiling::popRegion(); }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
};

/// "3.4.1".
inline std::string kokkos_version() {
  return std::to_string(KOKKOS_VERSION / 10000) + "." + std::to_string(KOKKOS_VERSION / 100 % 100) +
         "." + std::to_string(KOKKOS_VERSION % 100);
}

}  // namespace konclave
