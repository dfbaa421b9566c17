#pragma once

#include "base/error.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

namespace konclave {

/// bfloat16: 16 bits in memory, arithmetic in float, rounded to nearest even.
/// Kokkos' own bhalf_t is a 4-byte float on hosts, which would change sizes and numerics there.
/// All constexpr: device compilers take such functions without a decoration.
struct Bf16 {
  std::uint16_t bits;

  Bf16() = default;  // trivial, so that views of it are allocated and copied as bytes
  constexpr explicit Bf16(float value) : bits(round(value)) {}
  constexpr operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }

  /// The upper half of `value`, rounded to nearest even; a NaN stays a NaN.
  constexpr static std::uint16_t round(float value) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t rounded = (word + 0x7fffU + ((word >> 16) & 1U)) >> 16;
    const std::uint32_t quiet = (word >> 16) | 0x40U;
    return static_cast<std::uint16_t>((word & 0x7fffffffU) > 0x7f800000U ? quiet : rounded);
  }
};
static_assert(sizeof(Bf16) == 2 && std::is_trivially_copyable_v<Bf16>);

/// Element types of tensors.
enum class DType : std::uint8_t { bf16, fp32, fp64 };

template <typename X> inline constexpr DType kDTypeOf = DType::fp32;
template <> inline constexpr DType kDTypeOf<Bf16> = DType::bf16;
template <> inline constexpr DType kDTypeOf<double> = DType::fp64;

/// The type that sums of X are taken in: float, but double for double.
template <typename X> using Accum = std::conditional_t<std::is_same_v<X, double>, double, float>;

/// The same as a tag: fp32, but fp64 for fp64. Gradients, master weights and moments have it.
constexpr DType accum_type(DType type) { return type == DType::fp64 ? DType::fp64 : DType::fp32; }

constexpr std::size_t size_of(DType type) {
  return type == DType::bf16 ? 2 : type == DType::fp32 ? 4 : 8;
}

constexpr std::string_view name_of(DType type) {
  return type == DType::bf16 ? "bf16" : type == DType::fp32 ? "fp32" : "fp64";
}

template <typename X> struct TypeTag { using type = X; };

/// Calls f(TypeTag<X>{}) with the C++ type behind `type`: the door between tagged and typed code.
template <typename F> decltype(auto) dispatch(DType type, F&& f) {
  switch (type) {
    case DType::bf16:
      return f(TypeTag<Bf16>{});
    case DType::fp32:
      return f(TypeTag<float>{});
    case DType::fp64:
      return f(TypeTag<double>{});
  }
  fail("unknown element type");
}

/// The same for what is only ever in an accumulation type: float, or double for fp64.
template <typename F> decltype(auto) dispatch_accum(DType type, F&& f) {
  if (type == DType::fp64) return f(TypeTag<double>{});
  return f(TypeTag<float>{});
}

}  // namespace konclave
