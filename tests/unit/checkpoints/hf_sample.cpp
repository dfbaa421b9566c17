#include "tests/unit/checkpoints/hf_sample.hpp"

#include "base/dtype.hpp"
#include "base/file.hpp"

#include <bit>
#include <cstring>
#include <fstream>

namespace konclave {

namespace {

std::uint16_t to_half(float value) {
  const auto word = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = word >> 16 & 0x8000U;
  if (value == 0) return static_cast<std::uint16_t>(sign);
  const std::uint32_t exponent = (word >> 23 & 0xffU) - 112;
  return static_cast<std::uint16_t>(sign | exponent << 10 | (word >> 13 & 0x3ffU));
}

template <typename X> void append(std::vector<std::byte>& bytes, X value) {
  const auto* const first = reinterpret_cast<const std::byte*>(&value);
  bytes.insert(bytes.end(), first, first + sizeof value);
}

}  // namespace

std::filesystem::path oracle(const std::string& name) {
  return std::filesystem::path(KONCLAVE_SOURCE_DIR) / "tests/oracle/data" / name;
}

nlohmann::json read_json(const std::filesystem::path& path) {
  return nlohmann::json::parse(read_text(path));
}

void write_json(const std::filesystem::path& path, const nlohmann::json& value) {
  std::ofstream(path) << value.dump(1);
}

EditableFile read_tensors(const std::filesystem::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  EditableFile tensors;
  for (const auto& [name, entry] : file.entries()) {
    tensors[name] = {entry.dtype, entry.shape, {entry.data, entry.data + entry.bytes}};
  }
  return tensors;
}

void write_tensors(const std::filesystem::path& path, const EditableFile& tensors) {
  std::vector<SafetensorsSource> sources;
  for (const auto& [name, tensor] : tensors) {
    sources.push_back({name, tensor.dtype, tensor.shape, [&bytes = tensor.bytes](void* host) {
                         std::memcpy(host, bytes.data(), bytes.size());
                       }});
  }
  std::filesystem::remove(path);
  write_safetensors(path, sources);
}

EditableFile read_all_tensors(const std::filesystem::path& folder) {
  EditableFile all;
  for (const std::string& name : list_folder(folder)) {
    if (name.ends_with(".safetensors")) all.merge(read_tensors(folder / name));
  }
  return all;
}

EditableTensor tensor_of(const std::string& dtype, std::vector<std::int64_t> shape,
                         const std::vector<float>& values) {
  EditableTensor tensor{dtype, std::move(shape), {}};
  for (const float value : values) {
    if (dtype == "F32") append(tensor.bytes, value);
    if (dtype == "BF16") append(tensor.bytes, Bf16(value));
    if (dtype == "F16") append(tensor.bytes, to_half(value));
  }
  return tensor;
}

}  // namespace konclave
