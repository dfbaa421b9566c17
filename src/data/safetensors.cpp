#include "data/safetensors.hpp"

#include "base/error.hpp"
#include "base/file.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>
#include <sys/mman.h>
#include <utility>

namespace konclave {

static_assert(std::endian::native == std::endian::little,
              "safetensors files are little endian: swap bytes here on a big-endian machine");

namespace {

using nlohmann::json;

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kLargestHeader = 100'000'000;
constexpr std::uint64_t kHeaderAlignment = 8;
constexpr const char* kMetadata = "__metadata__";

/// 0 for an unknown type.
std::size_t element_bytes(std::string_view dtype) {
  static const std::map<std::string_view, std::size_t> kSizes = {
      {"F64", 8}, {"I64", 8},  {"U64", 8},     {"C64", 8},     {"F32", 4},    {"I32", 4},
      {"U32", 4}, {"F16", 2},  {"BF16", 2},    {"I16", 2},     {"U16", 2},    {"I8", 1},
      {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"F8_E8M0", 1}};
  const auto found = kSizes.find(dtype);
  return found == kSizes.end() ? 0 : found->second;
}

/// A file mapped for reading.
std::shared_ptr<const void> map_file(const File& file, std::size_t bytes) {
  void* const address = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file.descriptor(), 0);
  require(address != MAP_FAILED, "cannot map " + file.path().string() + ": " + std::strerror(errno),
          ExitCode::input);
  return {address, [bytes](const void* start) { ::munmap(const_cast<void*>(start), bytes); }};
}

std::size_t checked_bytes(std::string_view dtype, const std::vector<std::int64_t>& shape,
                          const std::string& what) {
  std::size_t bytes = element_bytes(dtype);
  require(bytes > 0, what + ": unknown type '" + std::string(dtype) + "'", ExitCode::input);
  for (const std::int64_t extent : shape) {
    require(extent >= 0, what + ": negative extent", ExitCode::input);
    const auto factor = static_cast<std::size_t>(extent);
    require(factor == 0 || bytes <= std::numeric_limits<std::size_t>::max() / factor,
            what + ": its size does not fit in 64 bits", ExitCode::input);
    bytes *= factor;
  }
  return bytes;
}

struct Place {
  std::string tensor;
  std::uint64_t begin, end;
};

/// One entry of the header and where its data lies, relative to the end of the header.
std::pair<SafetensorsEntry, Place> parse_entry(const std::string& name, const json& value,
                                               const std::string& file) {
  const std::string what = file + ": tensor " + name;
  SafetensorsEntry entry;
  std::vector<std::uint64_t> offsets;
  try {
    entry.dtype = value.at("dtype").get<std::string>();
    for (const json& extent : value.at("shape")) {
      require(extent.is_number_unsigned(), what + ": an extent is no whole number >= 0",
              ExitCode::input);
      entry.shape.push_back(extent.get<std::int64_t>());
    }
    value.at("data_offsets").get_to(offsets);
  } catch (const json::exception& error) {
    fail(what + ": bad entry in the header: " + error.what(), ExitCode::input);
  }
  require(offsets.size() == 2 && offsets[0] <= offsets[1],
          what + ": data_offsets wants a begin and an end", ExitCode::input);
  entry.bytes = checked_bytes(entry.dtype, entry.shape, what);
  require(offsets[1] - offsets[0] == entry.bytes,
          what + ": " + std::to_string(offsets[1] - offsets[0]) + " bytes in the file, but type " +
              entry.dtype + " and shape need " + std::to_string(entry.bytes),
          ExitCode::input);
  return {std::move(entry), Place{name, offsets[0], offsets[1]}};
}

/// The data must be covered once and without gaps.
void check_places(std::vector<Place> places, std::uint64_t data_bytes, const std::string& file) {
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  std::uint64_t covered = 0;
  for (const Place& place : places) {
    const std::string what = file + ": tensor " + place.tensor;
    require(place.end <= data_bytes,
            what + " ends at byte " + std::to_string(place.end) +
                " of the data, of which there are " + std::to_string(data_bytes) +
                ": the file is truncated",
            ExitCode::input);
    require(place.begin >= covered, what + " overlaps another one", ExitCode::input);
    require(place.begin == covered, what + ": there is a gap before its data", ExitCode::input);
    covered = place.end;
  }
  require(covered == data_bytes,
          file + ": " + std::to_string(data_bytes - covered) + " bytes behind the last tensor",
          ExitCode::input);
}

json parse_header(const char* begin, std::uint64_t bytes, const std::string& file) {
  try {
    json header = json::parse(begin, begin + bytes);
    require(header.is_object(), file + ": the header is no JSON object", ExitCode::input);
    return header;
  } catch (const json::exception& error) {
    fail(file + ": the header is no JSON: " + error.what(), ExitCode::input);
  }
}

/// Length of the header, checked against the file.
std::uint64_t header_length(const File& file) {
  const std::string name = file.path().string();
  const auto size = static_cast<std::uint64_t>(file.size());
  require(size >= kLengthBytes, name + ": too short for a safetensors file", ExitCode::input);
  std::uint64_t length = 0;
  file.read(0, &length, sizeof length);
  require(length <= kLargestHeader,
          name + ": a header of " + std::to_string(length) +
              " bytes; no safetensors file, or one with a header over 100 MB",
          ExitCode::input);
  require(length <= size - kLengthBytes, name + ": the file ends within its header (truncated)",
          ExitCode::input);
  return length;
}

}  // namespace

std::int64_t SafetensorsEntry::elements() const {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  return count;
}

std::size_t safetensors_bytes(std::string_view dtype, const std::vector<std::int64_t>& shape) {
  return checked_bytes(dtype, shape, "a tensor");
}

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  const File file = File::open(path);
  const std::string name = path.string();
  const std::uint64_t length = header_length(file);
  const auto size = static_cast<std::size_t>(file.size());

  SafetensorsFile opened;
  opened.path_ = path;
  opened.mapping_ = map_file(file, size);
  const auto* const start = static_cast<const char*>(opened.mapping_.get());
  const auto* const data = reinterpret_cast<const std::byte*>(start + kLengthBytes + length);

  std::vector<Place> places;
  const json header = parse_header(start + kLengthBytes, length, name);
  for (const auto& [tensor, value] : header.items()) {
    if (tensor == kMetadata) continue;
    auto [entry, place] = parse_entry(tensor, value, name);
    opened.entries_.emplace(tensor, std::move(entry));
    places.push_back(std::move(place));
  }
  check_places(places, size - kLengthBytes - length, name);
  for (const Place& place : places) opened.entries_.at(place.tensor).data = data + place.begin;
  return opened;
}

const SafetensorsEntry* SafetensorsFile::find(const std::string& name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : &found->second;
}

const SafetensorsEntry& SafetensorsFile::at(const std::string& name) const {
  const SafetensorsEntry* const entry = find(name);
  require(entry != nullptr, path_.string() + ": there is no tensor " + name, ExitCode::input);
  return *entry;
}

std::map<std::string, std::int64_t> create_safetensors(
    const std::filesystem::path& path, std::vector<SafetensorsSource> sources,
    const std::map<std::string, std::string>& metadata) {
  std::stable_sort(sources.begin(), sources.end(), [](const auto& a, const auto& b) {
    return element_bytes(a.dtype) > element_bytes(b.dtype);
  });
  json header = json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  std::map<std::string, std::int64_t> places;
  std::uint64_t end = 0;
  for (const SafetensorsSource& source : sources) {
    const std::uint64_t begin = end;
    end += safetensors_bytes(source.dtype, source.shape);
    places[source.name] = static_cast<std::int64_t>(begin);
    header[source.name] = {
        {"dtype", source.dtype}, {"shape", source.shape}, {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');

  const std::uint64_t length = text.size();
  const auto data = static_cast<std::int64_t>(kLengthBytes + length);
  File file = File::create(path);
  file.reserve(data + static_cast<std::int64_t>(end));
  file.write(0, &length, sizeof length);
  file.write(kLengthBytes, text.data(), text.size());
  file.close();
  for (auto& [name, place] : places) place += data;
  return places;
}

void write_safetensors(const std::filesystem::path& path, std::vector<SafetensorsSource> sources,
                       const std::map<std::string, std::string>& metadata) {
  const auto places = create_safetensors(path, sources, metadata);
  File file = File::open_for_writing(path);
  std::vector<std::byte> data;
  for (const SafetensorsSource& source : sources) {
    data.resize(safetensors_bytes(source.dtype, source.shape));
    source.fill(data.data());
    file.write(places.at(source.name), data.data(), data.size());
  }
  file.sync();
  file.close();
}

}  // namespace konclave
