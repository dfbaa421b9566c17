#include "base/file.hpp"
#include "base/version.hpp"
#include "checkpoints/folder_attempt.hpp"
#include "checkpoints/hugging_face.hpp"
#include "checkpoints/writer.hpp"

#include <nlohmann/json.hpp>

#include <cstdio>
#include <set>
#include <utility>

namespace konclave {

namespace {

namespace fs = std::filesystem;

std::string safetensors_type(DType type) {
  switch (type) {
    case DType::bf16:
      return "BF16";
    case DType::fp32:
      return "F32";
    case DType::fp64:
      return "F64";
  }
  fail("unknown element type");
}

void check_shape(const Checkpoint& checkpoint, const TensorInfo& wanted) {
  const TensorInfo& found = checkpoint.info(wanted.name);
  require(found.shape == wanted.shape,
          checkpoint.folder().string() + ": tensor " + wanted.name + " has shape " +
              found.shape_text() + "; the model makes it " + wanted.shape_text(),
          ExitCode::input);
}

/// Every tensor of the model is in the checkpoint with its shape, and there are no others.
void check_tensors(const Checkpoint& checkpoint, const std::vector<HfTensor>& tensors) {
  std::set<std::string> wanted;
  for (const HfTensor& tensor : tensors) {
    const std::string name = kModelGroup + tensor.name;
    wanted.insert(name);
    check_shape(checkpoint, {name, DType::fp32, tensor.shape});
  }
  for (const TensorInfo& tensor : checkpoint.manifest().tensors) {
    if (!tensor.name.starts_with(kModelGroup) || wanted.contains(tensor.name)) continue;
    fail(checkpoint.folder().string() + ": tensor " + tensor.name + " has no place in the model",
         ExitCode::input);
  }
}

/// The Hugging Face tensors, each of which is a part of one tensor of the checkpoint.
std::vector<SafetensorsSource> make_sources(const Checkpoint& checkpoint,
                                            const std::vector<HfTensor>& tensors) {
  std::vector<SafetensorsSource> sources;
  for (const HfTensor& tensor : tensors) {
    const std::string name = kModelGroup + tensor.name;
    std::int64_t first = 0;
    for (const HfSlice& slice : tensor.slices) {
      sources.push_back({slice.name, safetensors_type(checkpoint.info(name).type), slice.shape,
                         [&checkpoint, name, first, count = slice.count](void* host) {
                           checkpoint.read(name, first, count, host);
                         }});
      first += slice.count;
    }
  }
  return sources;
}

/// Cuts the list where the next tensor would make a file larger than `limit`.
std::vector<std::vector<SafetensorsSource>> split(std::vector<SafetensorsSource> sources,
                                                  std::int64_t limit) {
  std::vector<std::vector<SafetensorsSource>> shards(1);
  std::int64_t bytes = 0;
  for (SafetensorsSource& source : sources) {
    const auto size = static_cast<std::int64_t>(safetensors_bytes(source.dtype, source.shape));
    if (!shards.back().empty() && bytes + size > limit) {
      shards.emplace_back();
      bytes = 0;
    }
    bytes += size;
    shards.back().push_back(std::move(source));
  }
  return shards;
}

std::string shard_name(std::size_t index, std::size_t count) {
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return count == 1 ? "model.safetensors" : name;
}

void write_weights(const fs::path& folder, std::vector<SafetensorsSource> sources,
                   std::int64_t shard_bytes) {
  nlohmann::json weight_map = nlohmann::json::object();
  std::size_t total = 0;
  const auto shards = split(std::move(sources), shard_bytes);
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const std::string name = shard_name(i, shards.size());
    for (const SafetensorsSource& source : shards[i]) {
      weight_map[source.name] = name;
      total += safetensors_bytes(source.dtype, source.shape);
    }
    write_safetensors(folder / name, shards[i], {{"format", "pt"}});
  }
  if (shards.size() == 1) return;
  const nlohmann::json index = {{"metadata", {{"total_size", total}}}, {"weight_map", weight_map}};
  write_text(folder / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace

void convert_from_hf(const HfFolder& source, const fs::path& target, const std::string& deck) {
  CheckpointContent content;
  content.deck = deck;
  content.state = {{"step", 0}};
  content.provenance = {{"converted_from", fs::absolute(source.folder()).string()},
                        {"konclave", version()}};
  for (const TensorInfo& tensor : source.tensors()) {
    content.tensors.push_back(
        {{kModelGroup + tensor.name, tensor.type, tensor.shape},
         [&source, tensor](void* host) { source.read(tensor.name, tensor.type, host); }});
  }
  write_checkpoint_at(target, content);
}

void convert_to_hf(const Checkpoint& checkpoint, const ModelDefinition& definition,
                   const fs::path& target, std::int64_t shard_bytes) {
  require_free(target);
  const std::vector<HfTensor> tensors = hf_tensors(definition, HfSpelling::hub);
  check_tensors(checkpoint, tensors);
  FolderAttempt attempt(target);
  write_hf_config(attempt.folder(), definition,
                  checkpoint.info(kModelGroup + tensors.front().name).type);
  write_weights(attempt.folder(), make_sources(checkpoint, tensors), shard_bytes);
  attempt.commit();
}

}  // namespace konclave
