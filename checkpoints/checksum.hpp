#pragma once

#include "base/file.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace konclave {

/// XXH3-64 of some bytes.
std::uint64_t block_checksum(const void* data, std::size_t bytes);

/// XXH3-64 of each block of `kChecksumBlock` bytes; the last block may be shorter.
std::vector<std::uint64_t> block_checksums(const void* data, std::int64_t bytes);
std::int64_t block_count(std::int64_t bytes);

/// XXH3-128 as 32 hexadecimal digits, most significant first.
std::string digest(std::string_view bytes);
/// The same of a file's contents.
std::string digest(const File& file);

}  // namespace konclave
