#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace konclave {

/// Philox 4x32 with 10 rounds (Salmon et al., SC11): four random words from a counter and a key.
/// A counter-based generator has no state, so what is drawn never depends on ranks or order.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                    std::array<std::uint32_t, 2> key);

/// A stream of random numbers addressed by index. Streams of different seed or purpose are
/// independent; `purpose` is a parameter's name or the name of a use ("shuffle").
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::string_view purpose);

  std::uint64_t bits(std::uint64_t index) const;
  /// Uniform in [0, 1), 53 bits.
  double uniform(std::uint64_t index) const;
  /// Standard normal (Box-Muller in double).
  double normal(std::uint64_t index) const;

 private:
  std::array<std::uint32_t, 4> words(std::uint64_t index) const;

  std::array<std::uint32_t, 2> key_;
  std::uint64_t purpose_;
};

/// A permutation of 0..size-1 as a function: O(1) memory, any element at once. A Feistel network
/// over the next even power of two, walked until the value falls into range.
class RandomPermutation {
 public:
  RandomPermutation(std::uint64_t seed, std::string_view purpose, std::uint64_t size);

  std::uint64_t size() const { return size_; }
  std::uint64_t operator()(std::uint64_t index) const;

 private:
  std::uint64_t encrypt(std::uint64_t value) const;

  RandomStream stream_;
  std::uint64_t size_;
  int half_bits_;
};

/// 64-bit FNV-1a of a text: how names become keys of random streams.
std::uint64_t fnv1a(std::string_view text);

}  // namespace konclave
