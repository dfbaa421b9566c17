#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace konclave {

/// One tensor of a safetensors file. The bytes are little endian and row-major, belong to the
/// SafetensorsFile, and may lie at any address: copy values out, do not cast the pointer.
struct SafetensorsEntry {
  std::string dtype;  ///< as the format spells it: "F32", "BF16", "I64", ...
  std::vector<std::int64_t> shape;
  const std::byte* data = nullptr;
  std::size_t bytes = 0;

  std::int64_t elements() const;
};

/// A safetensors file: u64 length of a JSON header, the header, the data. Opening checks all that
/// the header says against the file; the data is mapped, so it is read when it is used.
/// Errors carry ExitCode::input and name the file and the tensor.
class SafetensorsFile {
 public:
  static SafetensorsFile open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const std::map<std::string, SafetensorsEntry>& entries() const { return entries_; }
  /// nullptr when there is none of that name.
  const SafetensorsEntry* find(const std::string& name) const;
  /// Throws Error when there is none of that name.
  const SafetensorsEntry& at(const std::string& name) const;

 private:
  std::filesystem::path path_;
  std::map<std::string, SafetensorsEntry> entries_;
  std::shared_ptr<const void> mapping_;
};

/// A tensor to be written. `fill` is called once, with room for all of its bytes.
struct SafetensorsSource {
  std::string name;
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::function<void(void* host)> fill;
};

/// Bytes of a tensor's data. Throws Error(input) for a type that the format does not have.
std::size_t safetensors_bytes(std::string_view dtype, const std::vector<std::int64_t>& shape);

/// Makes a new file with everything but the data, whose space is reserved, and gives back where the
/// data of each tensor begins, by name. Throws Error(io). For files that several processes fill;
/// `fill` is not called.
std::map<std::string, std::int64_t> create_safetensors(
    const std::filesystem::path& path, std::vector<SafetensorsSource> sources,
    const std::map<std::string, std::string>& metadata = {});

/// Writes a new file, on the disk when the call returns; throws Error(io). The largest element
/// types come first, so that every tensor is aligned to its element. Holds one tensor at a time.
void write_safetensors(const std::filesystem::path& path, std::vector<SafetensorsSource> sources,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace konclave
