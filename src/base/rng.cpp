#include "base/rng.hpp"

#include "base/error.hpp"

#include <cmath>
#include <numbers>

namespace konclave {

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

double RandomStream::normal(std::uint64_t index) const {
  const auto [u, v] = uniform_pair(index);
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
