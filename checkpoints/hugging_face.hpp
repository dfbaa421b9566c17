#pragma once

#include "checkpoints/format.hpp"
#include "checkpoints/hf_names.hpp"
#include "checkpoints/reader.hpp"
#include "data/safetensors.hpp"
#include "model/config.hpp"
#include "parallel/shard.hpp"
#include "tensor/view.hpp"

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace konclave {

/// The model that a Hugging Face folder's config.json describes: model_type mixtral, qwen2_moe,
/// llama or mistral. `sequence_length` is the one that the model is wanted for; 0 takes the model's
/// own maximum. What Konclave computes otherwise than the config asks for is refused: Error(input)
/// with the file and the key.
ModelDefinition read_hf_config(const std::filesystem::path& folder, int sequence_length = 0);

/// Writes config.json for a model whose tensors are of `type`. Throws Error(input) naming what
/// Hugging Face's Mixtral, Qwen2-MoE and Llama cannot express.
void write_hf_config(const std::filesystem::path& folder, const ModelDefinition& definition,
                     DType type);

/// A Hugging Face folder: config.json with model.safetensors, or with the files that
/// model.safetensors.index.json names. Opening accounts for every tensor: one that is missing, has
/// another shape, or belongs nowhere is an Error(input) with its name and file.
class HfFolder {
 public:
  explicit HfFolder(const std::filesystem::path& folder, int sequence_length = 0);
  HfFolder(HfFolder&&) = default;
  HfFolder& operator=(HfFolder&&) = default;

  const std::filesystem::path& folder() const { return folder_; }
  const ModelDefinition& definition() const { return definition_; }
  /// The model's tensors under Konclave's names (without a group), in the type that is stored:
  /// fp32 for half precision; the widest one where the experts of a tensor differ.
  const std::vector<TensorInfo>& tensors() const { return infos_; }

  /// The whole tensor, converted to `type`. Throws Error(input) when a value is NaN or infinite.
  void read(const std::string& name, DType type, void* host) const;
  /// `count` elements of the flattened tensor from `first` on.
  void read(const std::string& name, std::int64_t first, std::int64_t count, DType type,
            void* host) const;
  /// What `shard` is of a tensor of `shape`, into memory of the device.
  void read(const ExecSpace& exec, const std::string& name, const std::vector<std::int64_t>& shape,
            const Shard& shard, const AnyView& target) const;

 private:
  /// A tensor of one of the files.
  struct Source {
    const SafetensorsFile* file;
    const SafetensorsEntry* entry;
  };

  void open_files();
  HfSpelling spelling() const;
  const HfTensor& tensor(const std::string& name) const;
  const Source& source(const HfSlice& slice) const;
  void check_leftovers() const;
  DType stored_type(const HfTensor& wanted) const;
  void read_slice(const HfSlice& slice, DType type, void* target) const;

  std::filesystem::path folder_;
  ModelDefinition definition_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Source> sources_;  // by Hugging Face's name
  std::vector<HfTensor> tensors_;
  std::vector<TensorInfo> infos_;
};

/// Hugging Face folder -> checkpoint at `target`, which must be free: step 0, model tensors only,
/// in the type that is stored. `deck` is the text of its deck.
void convert_from_hf(const HfFolder& source, const std::filesystem::path& target,
                     const std::string& deck);

inline constexpr std::int64_t kHfShardBytes = 5'000'000'000;

/// Checkpoint -> Hugging Face folder at `target`, which must be free, of the family that hf_family
/// names: model.safetensors, or files of at most `shard_bytes` (or one tensor)
/// and their index.
void convert_to_hf(const Checkpoint& checkpoint, const ModelDefinition& definition,
                   const std::filesystem::path& target, std::int64_t shard_bytes = kHfShardBytes);

}  // namespace konclave
