#pragma once

/// The formula of fast_exp, for numbers and for vectors of them. Always inlined and without the
/// standard library, so that files which are compiled for different CPUs can share it.
namespace konclave {

/// result = exp(x). `Bits` and `Integers` have the elements of `Float` as uint32 and int32: plain
/// types, or vectors in the compiler's own terms. All choices are made on integers: comparisons
/// that select floats stop g++ from vectorising.
template <typename Bits, typename Integers, typename Float>
[[gnu::always_inline]] constexpr void exp_polynomial(const Float& x, Float& result) {
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: adding it rounds to an integer
  const Float scaled = x * 1.44269504F;
  const Float shifted = scaled + kRound, whole = shifted - kRound;
  const Float r = (x - whole * 0.693359375F) + whole * 2.12194440e-4F;
  Float p = r * 1.9875691e-4F + 1.3981999e-3F;
  p = p * r + 8.3334519e-3F;
  p = p * r + 4.1665795e-2F;
  p = p * r + 1.6666665e-1F;
  p = p * r + 5.0000001e-1F;
  p = p * r * r + r + 1.0F;
  const Integers lowest = Integers{} - 126, highest = Integers{} + 127;
  auto exponent = __builtin_bit_cast(Integers, __builtin_bit_cast(Bits, shifted) - 0x4b400000U);
  exponent = exponent < lowest ? lowest : exponent;
  exponent = exponent > highest ? highest : exponent;
  const Bits power = __builtin_bit_cast(Bits, exponent + 127) << 23;
  const Bits none{}, all = ~none, infinity = none + 0x7f800000U;
  const Bits positive = x < -87.0F ? none : all, finite = x > 88.37F ? none : all;
  const Bits bits =
      __builtin_bit_cast(Bits, p * __builtin_bit_cast(Float, power)) & positive & finite;
  result = __builtin_bit_cast(Float, bits | (infinity & ~finite));
}

}  // namespace konclave
