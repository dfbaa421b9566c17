#include "base/rng.hpp"

#include "base/error.hpp"

#include <cmath>
#include <numbers>

namespace konclave {

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
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

std::uint64_t fnv1a(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char letter : text) {
    hash ^= static_cast<unsigned char>(letter);
    hash *= 0x100000001b3ULL;
  }
  return hash;
}

RandomStream::RandomStream(std::uint64_t seed, std::string_view purpose)
    : key_{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)},
      purpose_(fnv1a(purpose)) {}

std::array<std::uint32_t, 4> RandomStream::words(std::uint64_t index) const {
  return philox({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                 static_cast<std::uint32_t>(purpose_), static_cast<std::uint32_t>(purpose_ >> 32)},
                key_);
}

std::uint64_t RandomStream::bits(std::uint64_t index) const {
  const auto word = words(index);
  return static_cast<std::uint64_t>(word[0]) << 32 | word[1];
}

namespace {
double to_unit(std::uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1.0p-53; }
}  // namespace

double RandomStream::uniform(std::uint64_t index) const { return to_unit(bits(index)); }

double RandomStream::normal(std::uint64_t index) const {
  const auto word = words(index);
  const double u = to_unit(static_cast<std::uint64_t>(word[0]) << 32 | word[1]);
  const double v = to_unit(static_cast<std::uint64_t>(word[2]) << 32 | word[3]);
  return std::sqrt(-2.0 * std::log(1.0 - u)) * std::cos(2.0 * std::numbers::pi * v);
}

RandomPermutation::RandomPermutation(std::uint64_t seed, std::string_view purpose,
                                     std::uint64_t size)
    : stream_(seed, purpose), size_(size), half_bits_(1) {
  require(size > 0 && size <= (std::uint64_t{1} << 62), "a permutation needs 1 to 2^62 elements");
  while ((std::uint64_t{1} << (2 * half_bits_)) < size) ++half_bits_;
}

std::uint64_t RandomPermutation::encrypt(std::uint64_t value) const {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  std::uint64_t left = value >> half_bits_, right = value & mask;
  for (std::uint64_t round = 0; round < 6; ++round) {
    const std::uint64_t next = left ^ (stream_.bits(round << 40 | right) & mask);
    left = right;
    right = next;
  }
  return left << half_bits_ | right;
}

std::uint64_t RandomPermutation::operator()(std::uint64_t index) const {
  require(index < size_, "index outside of the permutation");
  std::uint64_t value = encrypt(index);
  while (value >= size_) value = encrypt(value);
  return value;
}

}  // namespace konclave
