#pragma once

#include <cstdint>
#include <string_view>

namespace konclave {

/// Bytes of physical memory of this process, as the kernel counts them; 0: unknown.
struct ProcessMemory {
  std::int64_t peak = 0;         ///< at most so far, shared pages whole
  std::int64_t peak_of_all = 0;  ///< the same with a page of n processes counted as 1/n
};
ProcessMemory process_memory();

/// The bytes behind "NAME:" in the kernel's "NAME:   1234 kB" lines; 0 where there is none.
std::int64_t kernel_bytes(std::string_view text, std::string_view name);

}  // namespace konclave
