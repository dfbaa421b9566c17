#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace konclave {

/// Philox 4x32 with 10 rounds (Salmon et al., SC11): four random words from a counter and a key.
/// A counter-based generator has no state, so what is drawn never depends on ranks or order.
constexpr std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                              std::array<std::uint32_t, 2> key) {
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = kMultiplier0 * counter[0];
    const std::uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

/// A stream of random numbers addressed by index. Streams of different seed or purpose are
/// independent; `purpose` is a parameter's name or the name of a use ("shuffle"). What is constexpr
/// also serves kernels, which take a copy of the stream.
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::string_view purpose);

  constexpr std::uint64_t bits(std::uint64_t index) const {
    const auto word = words(index);
    return std::uint64_t{word[0]} << 32 | word[1];
  }
  /// Uniform in [0, 1), 53 bits; the pair's first is that number.
  constexpr double uniform(std::uint64_t index) const { return to_unit(bits(index)); }
  struct Pair {
    double first, second;
  };
  constexpr Pair uniform_pair(std::uint64_t index) const {
    const auto word = words(index);
    return {to_unit(std::uint64_t{word[0]} << 32 | word[1]),
            to_unit(std::uint64_t{word[2]} << 32 | word[3])};
  }
  /// Standard normal (Box-Muller in double).
  double normal(std::uint64_t index) const;

 private:
  static constexpr double to_unit(std::uint64_t bits) {
    return static_cast<double>(bits >> 11) * 0x1.0p-53;
  }
  constexpr std::array<std::uint32_t, 4> words(std::uint64_t index) const {
    return philox(
        {static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
         static_cast<std::uint32_t>(purpose_), static_cast<std::uint32_t>(purpose_ >> 32)},
        key_);
  }

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
