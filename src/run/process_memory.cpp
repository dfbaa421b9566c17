#include "run/process_memory.hpp"

#include "base/error.hpp"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <string>
#include <sys/resource.h>

namespace konclave {

namespace {

/// "" for a file that cannot be read: this kernel has it not.
std::string kernel_file(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::int64_t peak_resident() {
  rusage usage{};
  require(getrusage(RUSAGE_SELF, &usage) == 0, "the system does not count this process's memory");
  return std::int64_t{usage.ru_maxrss} * 1024;
}

}  // namespace

std::int64_t kernel_bytes(std::string_view text, std::string_view name) {
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    if (!line.starts_with(name) || !line.substr(name.size()).starts_with(':')) continue;
    const std::string_view number =
        line.substr(std::min(line.size(), line.find_first_of("0123456789", name.size())));
    std::int64_t kib = 0;
    std::from_chars(number.data(), number.data() + number.size(), kib);
    return kib * 1024;
  }
  return 0;
}

ProcessMemory process_memory() {
  const std::string status = kernel_file("/proc/self/status");
  const std::string sums = kernel_file("/proc/self/smaps_rollup");
  ProcessMemory memory;
  memory.peak = peak_resident();
  // What was given back since the peak was this process's own.
  const std::int64_t given_back = memory.peak - kernel_bytes(status, "VmRSS");
  const std::int64_t shared_out = kernel_bytes(sums, "Pss");
  if (shared_out > 0) memory.peak_of_all = shared_out + std::max<std::int64_t>(0, given_back);
  return memory;
}

}  // namespace konclave
