#include "checkpoints/values.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

namespace konclave {

namespace {

template <typename X> X load(const void* values, std::int64_t index) {
  X value;
  std::memcpy(&value, static_cast<const std::byte*>(values) + index * sizeof(X), sizeof(X));
  return value;
}

template <typename X> void store(void* values, std::int64_t index, X value) {
  std::memcpy(static_cast<std::byte*>(values) + index * sizeof(X), &value, sizeof(X));
}

float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16, exponent = half >> 10 & 0x1fU,
                      mantissa = half & 0x3ffU;
  if (exponent == 0) {  // zero and subnormals: multiples of 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1.0p-24F;
    return sign != 0 ? -magnitude : magnitude;
  }
  constexpr std::uint32_t kRebias = 127 - 15, kInfinity = 0x7f800000U;
  const std::uint32_t magnitude =
      exponent == 0x1f ? kInfinity | mantissa << 13 : (exponent + kRebias) << 23 | mantissa << 13;
  return std::bit_cast<float>(sign | magnitude);
}

}  // namespace

void convert_values(DType from, const void* source, DType to, void* target, std::int64_t count) {
  if (from == to) {
    std::memcpy(target, source, static_cast<std::size_t>(count) * size_of(from));
    return;
  }
  dispatch(from, [&](auto from_tag) {
    dispatch(to, [&](auto to_tag) {
      using From = typename decltype(from_tag)::type;
      using To = typename decltype(to_tag)::type;
      for (std::int64_t i = 0; i < count; ++i) {
        const From value = load<From>(source, i);
        store(target, i, To(static_cast<Accum<To>>(static_cast<Accum<From>>(value))));
      }
    });
  });
}

void widen_half(const void* source, void* target, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    store(target, i, half_to_float(load<std::uint16_t>(source, i)));
  }
}

std::optional<std::int64_t> find_non_finite(DType type, const void* values, std::int64_t count) {
  return dispatch(type, [&](auto tag) -> std::optional<std::int64_t> {
    using X = typename decltype(tag)::type;
    for (std::int64_t i = 0; i < count; ++i) {
      if (!std::isfinite(static_cast<Accum<X>>(load<X>(values, i)))) return i;
    }
    return {};
  });
}

bool has_shape(const AnyIn& view, const std::vector<std::int64_t>& shape) {
  bool same = view.rank() == static_cast<int>(shape.size());
  for (int axis = 0; same && axis < view.rank(); ++axis) {
    same = view.extent(axis) == shape[static_cast<std::size_t>(axis)];
  }
  return same;
}

}  // namespace konclave
