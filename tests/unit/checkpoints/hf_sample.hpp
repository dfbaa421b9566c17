#pragma once

#include "data/safetensors.hpp"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace konclave {

/// A folder of the committed reference data, tests/oracle/data/`name`.
std::filesystem::path oracle(const std::string& name);

/// The file of a Hugging Face folder as JSON, and back.
nlohmann::json read_json(const std::filesystem::path& path);
void write_json(const std::filesystem::path& path, const nlohmann::json& value);

/// A safetensors file that can be changed and written again.
struct EditableTensor {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> bytes;

  bool operator==(const EditableTensor&) const = default;
};
using EditableFile = std::map<std::string, EditableTensor>;

EditableFile read_tensors(const std::filesystem::path& path);
void write_tensors(const std::filesystem::path& path, const EditableFile& tensors);

/// The tensors of all safetensors files in a folder.
EditableFile read_all_tensors(const std::filesystem::path& folder);

/// fp32 values as a tensor of this type: "F32", "BF16" or "F16" (which they must fit in exactly).
EditableTensor tensor_of(const std::string& dtype, std::vector<std::int64_t> shape,
                         const std::vector<float>& values);

}  // namespace konclave
