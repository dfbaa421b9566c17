#pragma once

#include <cstdint>
#include <string_view>

namespace konclave {

/// CRC-32C (Castagnoli): reflected polynomial 0x82F63B78, all bits inverted before and after.
std::uint32_t crc32c(std::string_view bytes);

}  // namespace konclave
