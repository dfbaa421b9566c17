#include "checkpoints/checksum.hpp"

#include "base/error.hpp"
#include "checkpoints/format.hpp"

#include <xxhash.h>

#include <algorithm>
#include <cstdio>
#include <memory>

namespace konclave {

namespace {

std::string to_hex(const XXH128_hash_t& hash) {
  char text[33];
  std::snprintf(text, sizeof text, "%016llx%016llx", static_cast<unsigned long long>(hash.high64),
                static_cast<unsigned long long>(hash.low64));
  return text;
}

}  // namespace

std::uint64_t block_checksum(const void* data, std::size_t bytes) {
  return XXH3_64bits(data, bytes);
}

std::int64_t block_count(std::int64_t bytes) {
  return (bytes + kChecksumBlock - 1) / kChecksumBlock;
}

std::vector<std::uint64_t> block_checksums(const void* data, std::int64_t bytes) {
  const auto* const start = static_cast<const std::byte*>(data);
  std::vector<std::uint64_t> sums;
  for (std::int64_t begin = 0; begin < bytes; begin += kChecksumBlock) {
    const std::int64_t size = std::min(kChecksumBlock, bytes - begin);
    sums.push_back(block_checksum(start + begin, static_cast<std::size_t>(size)));
  }
  return sums;
}

std::string digest(std::string_view bytes) {
  return to_hex(XXH3_128bits(bytes.data(), bytes.size()));
}

std::string digest(const File& file) {
  const std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> state(XXH3_createState(),
                                                                              &XXH3_freeState);
  require(state != nullptr && XXH3_128bits_reset(state.get()) == XXH_OK, "no memory for a hash");
  const std::int64_t size = file.size();
  std::vector<std::byte> piece(static_cast<std::size_t>(std::min(size, kChecksumBlock)));
  for (std::int64_t begin = 0; begin < size; begin += kChecksumBlock) {
    const auto bytes = static_cast<std::size_t>(std::min(kChecksumBlock, size - begin));
    file.read(begin, piece.data(), bytes);
    XXH3_128bits_update(state.get(), piece.data(), bytes);
  }
  return to_hex(XXH3_128bits_digest(state.get()));
}

}  // namespace konclave
