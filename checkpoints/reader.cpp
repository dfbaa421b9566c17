#include "checkpoints/reader.hpp"

#include "checkpoints/checksum.hpp"
#include "checkpoints/tensor_file.hpp"
#include "checkpoints/values.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace konclave {

namespace {

namespace fs = std::filesystem;

const FileInfo& file_info(const Manifest& manifest, const std::string& name,
                          const fs::path& folder) {
  const auto found = std::find_if(manifest.files.begin(), manifest.files.end(),
                                  [&](const FileInfo& file) { return file.name == name; });
  require(found != manifest.files.end(),
          (folder / kManifestFile).string() + " does not list " + name, ExitCode::input);
  return *found;
}

/// Opens a file of the checkpoint if it has the size that it was written with.
File open_file(const fs::path& folder, const FileInfo& expected) {
  File file = File::open(folder / expected.name);
  require(file.size() == expected.bytes,
          file.path().string() + " has " + std::to_string(file.size()) + " bytes instead of " +
              std::to_string(expected.bytes),
          ExitCode::input);
  return file;
}

void check_digest(const File& file, const std::string& actual, const FileInfo& expected) {
  require(actual == expected.digest,
          file.path().string() + " is damaged: its checksum is not the manifest's",
          ExitCode::input);
}

/// A small file, checked.
std::string checked_text(const fs::path& folder, const FileInfo& expected) {
  const File file = open_file(folder, expected);
  std::string text(static_cast<std::size_t>(expected.bytes), '\0');
  file.read(0, text.data(), text.size());
  check_digest(file, digest(std::string_view(text)), expected);
  return text;
}

}  // namespace

Checkpoint::Checkpoint(fs::path folder, Manifest manifest)
    : folder_(std::move(folder)),
      manifest_(std::move(manifest)),
      data_(open_file(folder_, file_info(manifest_, kTensorFile, folder_))) {}

Checkpoint Checkpoint::open(const fs::path& folder) {
  Checkpoint opened(folder, read_manifest(folder));
  const Manifest& manifest = opened.manifest_;
  opened.deck_ = checked_text(folder, file_info(manifest, kDeckFile, folder));
  opened.state_ =
      nlohmann::json::parse(checked_text(folder, file_info(manifest, kStateFile, folder)));
  for (StoredTensor& tensor : locate_tensors(folder / kTensorFile, manifest.tensors)) {
    const std::string name = tensor.info.name;
    opened.tensors_.emplace(name, std::move(tensor));
  }
  return opened;
}

const StoredTensor& Checkpoint::stored(const std::string& tensor) const {
  const auto found = tensors_.find(tensor);
  require(found != tensors_.end(), folder_.string() + " has no tensor " + tensor, ExitCode::input);
  return found->second;
}

void Checkpoint::read_block(const StoredTensor& tensor, std::int64_t block,
                            std::vector<std::byte>& data) const {
  const std::int64_t begin = block * kChecksumBlock;
  data.resize(static_cast<std::size_t>(std::min(kChecksumBlock, tensor.info.bytes() - begin)));
  data_.read(tensor.offset + begin, data.data(), data.size());
  require(
      block_checksum(data.data(), data.size()) == tensor.checksums[static_cast<std::size_t>(block)],
      data_.path().string() + ": tensor " + tensor.info.name + ", block " + std::to_string(block) +
          " of " + std::to_string(tensor.checksums.size()) +
          " is damaged: data and checksum differ",
      ExitCode::input);
}

void Checkpoint::read(const std::string& tensor, std::int64_t first, std::int64_t count,
                      void* host) const {
  const StoredTensor& source = stored(tensor);
  require(first >= 0 && count >= 0 && first + count <= source.info.elements(),
          "elements outside of tensor " + tensor);
  const auto width = static_cast<std::int64_t>(size_of(source.info.type));
  const std::int64_t begin = first * width, end = (first + count) * width;
  auto* target = static_cast<std::byte*>(host);
  std::vector<std::byte> data;
  for (std::int64_t block = begin / kChecksumBlock; block < block_count(end); ++block) {
    read_block(source, block, data);
    const std::int64_t start = block * kChecksumBlock;
    const std::int64_t from = std::max(begin, start), to = std::min(end, start + kChecksumBlock);
    target = std::copy(data.begin() + (from - start), data.begin() + (to - start), target);
  }
}

void Checkpoint::read(const std::string& tensor, void* host) const {
  read(tensor, 0, info(tensor).elements(), host);
}

void Checkpoint::read(const ExecSpace& exec, const std::string& tensor,
                      const std::vector<std::int64_t>& shape, const ShardRange& range,
                      const AnyView& target) const {
  const TensorInfo& source = info(tensor);
  const TensorInfo wanted{tensor, target.type(), shape};
  require(source.shape == shape,
          folder_.string() + ": tensor " + tensor + " has shape " + source.shape_text() +
              "; the model wants " + wanted.shape_text(),
          ExitCode::input);
  require(target.size() == range.count, "a part of " + std::to_string(range.count) +
                                            " elements is read into " + target.describe());
  const std::size_t width = size_of(source.type);
  std::vector<std::byte> host(static_cast<std::size_t>(range.count) * width);
  for (const ShardRun& run : shard_runs(shape, range)) {
    read(tensor, run.in_whole, run.count,
         host.data() + static_cast<std::size_t>(run.in_shard) * width);
  }
  if (source.type != target.type()) {
    std::vector<std::byte> converted(target.bytes());
    convert_values(source.type, host.data(), target.type(), converted.data(), range.count);
    host.swap(converted);
  }
  copy_from_host(exec, host.data(), target);
}

void Checkpoint::read(const ExecSpace& exec, const std::string& tensor,
                      const std::vector<std::int64_t>& shape, const Shard& shard,
                      const AnyView& target) const {
  require(has_shape(target, shard.extent), "a shard is read into " + target.describe());
  read(exec, tensor, shape, ShardRange::of(shard), target);
}

void Checkpoint::verify() const {
  std::vector<std::byte> data;
  for (const auto& [name, tensor] : tensors_) {
    for (std::int64_t block = 0; block < block_count(tensor.info.bytes()); ++block) {
      read_block(tensor, block, data);
    }
  }
  // What the blocks do not cover: HDF5's metadata and padding, and the other files.
  for (const FileInfo& expected : manifest_.files) {
    const File file = open_file(folder_, expected);
    check_digest(file, digest(file), expected);
  }
}

}  // namespace konclave
