#include "checkpoints/manifest.hpp"

#include "base/file.hpp"
#include "checkpoints/checksum.hpp"

#include <nlohmann/json.hpp>

#include <string_view>
#include <utility>

namespace konclave {

namespace {

using nlohmann::json;

/// The manifest carries the checksum of its own text, taken with zeros in the place of its digits.
const std::string kNoChecksum(32, '0');

json to_json(const Manifest& manifest) {
  json files = json::array(), tensors = json::array();
  for (const FileInfo& file : manifest.files) {
    files.push_back({{"name", file.name}, {"bytes", file.bytes}, {"xxh3_128", file.digest}});
  }
  for (const TensorInfo& tensor : manifest.tensors) {
    tensors.push_back(
        {{"name", tensor.name}, {"dtype", stored_name(tensor.type)}, {"shape", tensor.shape}});
  }
  return {{"format", kCheckpointFormat},
          {"step", manifest.step},
          {"files", files},
          {"tensors", tensors},
          {"xxh3_128", kNoChecksum}};
}

TensorInfo parse_tensor(const json& value, const std::string& path) {
  const auto type_name = value.at("dtype").get<std::string>();
  const auto type = parse_stored_name(type_name);
  require(type.has_value(), path + ": unknown type '" + type_name + "'", ExitCode::input);
  return {value.at("name").get<std::string>(), *type,
          value.at("shape").get<std::vector<std::int64_t>>()};
}

Manifest from_json(const json& value, const std::string& path) {
  Manifest manifest;
  value.at("step").get_to(manifest.step);
  for (const json& file : value.at("files")) {
    manifest.files.push_back({file.at("name").get<std::string>(),
                              file.at("bytes").get<std::int64_t>(),
                              file.at("xxh3_128").get<std::string>()});
  }
  for (const json& tensor : value.at("tensors")) {
    manifest.tensors.push_back(parse_tensor(tensor, path));
  }
  return manifest;
}

/// Compares the text with the checksum in it.
void check_text(std::string text, const std::string& checksum, const std::string& path) {
  const std::size_t place = text.find(checksum);
  const bool found = checksum.size() == kNoChecksum.size() && place != std::string::npos;
  if (found) text.replace(place, checksum.size(), kNoChecksum);
  require(found && digest(std::string_view(text)) == checksum,
          path + " is damaged: its checksum does not match", ExitCode::input);
}

}  // namespace

FileInfo describe_file(const File& file) {
  return {file.path().filename().string(), file.size(), digest(file)};
}

void write_manifest(const std::filesystem::path& folder, const Manifest& manifest) {
  std::string text = to_json(manifest).dump(1) + "\n";
  text.replace(text.rfind(kNoChecksum), kNoChecksum.size(), digest(std::string_view(text)));
  write_text(folder / kManifestFile, text);
}

Manifest read_manifest(const std::filesystem::path& folder) {
  const std::string path = (folder / kManifestFile).string();
  const std::string text = read_text(path);
  try {
    const json value = json::parse(text);
    // Checksum and format keep their places in later formats. The checksum comes first: a damaged
    // number is not to look like a later format.
    check_text(text, value.at("xxh3_128").get<std::string>(), path);
    const int format = value.at("format").get<int>();
    if (format > kCheckpointFormat) {
      throw NewerFormat(path + " is of format " + std::to_string(format) +
                        "; this version of konclave reads formats up to " +
                        std::to_string(kCheckpointFormat));
    }
    return from_json(value, path);
  } catch (const json::exception& error) {
    fail(path + " is damaged: " + error.what(), ExitCode::input);
  }
}

}  // namespace konclave
