#pragma once

#include "base/file.hpp"
#include "checkpoints/format.hpp"
#include "checkpoints/manifest.hpp"
#include "parallel/shard.hpp"
#include "tensor/view.hpp"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace konclave {

/// A checkpoint to read. Whatever is missing, unreadable or damaged is an Error(input) that names
/// the file and, within tensors.h5, the tensor and the block.
class Checkpoint {
 public:
  /// Reads and checks everything but the tensors' data: the manifest, the small files and the
  /// metadata of tensors.h5. Throws NewerFormat for a later format.
  static Checkpoint open(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }
  std::int64_t step() const { return manifest_.step; }
  const Manifest& manifest() const { return manifest_; }
  /// The effective deck of the run that wrote it.
  const std::string& deck() const { return deck_; }
  /// What the trainer needs to go on.
  const nlohmann::json& state() const { return state_; }

  bool has(const std::string& tensor) const { return tensors_.contains(tensor); }
  const TensorInfo& info(const std::string& tensor) const { return stored(tensor).info; }

  /// `count` elements of the flattened tensor from `first` on, in the type that is stored. The
  /// blocks that they lie in, and no others, are read and checked.
  void read(const std::string& tensor, std::int64_t first, std::int64_t count, void* host) const;
  /// All of it.
  void read(const std::string& tensor, void* host) const;
  /// What `range` is of a tensor of `shape`, into memory of the device, converted to the type of
  /// `target`, which has as many elements.
  void read(const ExecSpace& exec, const std::string& tensor,
            const std::vector<std::int64_t>& shape, const ShardRange& range,
            const AnyView& target) const;
  /// All of a shard; `target` has its extents.
  void read(const ExecSpace& exec, const std::string& tensor,
            const std::vector<std::int64_t>& shape, const Shard& shard,
            const AnyView& target) const;

  /// Reads everything and compares it with every checksum.
  void verify() const;

 private:
  Checkpoint(std::filesystem::path folder, Manifest manifest);

  const StoredTensor& stored(const std::string& tensor) const;
  void read_block(const StoredTensor& tensor, std::int64_t block,
                  std::vector<std::byte>& data) const;

  std::filesystem::path folder_;
  Manifest manifest_;
  std::string deck_;
  nlohmann::json state_;
  File data_;  // tensors.h5
  std::map<std::string, StoredTensor> tensors_;
};

}  // namespace konclave
