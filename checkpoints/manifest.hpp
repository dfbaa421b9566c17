#pragma once

#include "base/file.hpp"
#include "checkpoints/format.hpp"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace konclave {

/// A file of a checkpoint as it was written.
struct FileInfo {
  std::string name;
  std::int64_t bytes = 0;
  std::string digest;  ///< XXH3-128 of its contents
};

/// What a checkpoint consists of. Written last: a folder without one is no checkpoint.
struct Manifest {
  std::int64_t step = 0;
  std::vector<FileInfo> files;
  std::vector<TensorInfo> tensors;
};

/// Name within its folder, size and checksum.
FileInfo describe_file(const File& file);

void write_manifest(const std::filesystem::path& folder, const Manifest& manifest);

/// Throws Error(input) when it is missing or altered in any bit, and NewerFormat.
Manifest read_manifest(const std::filesystem::path& folder);

}  // namespace konclave
