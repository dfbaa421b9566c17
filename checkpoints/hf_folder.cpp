#include "base/file.hpp"
#include "base/text.hpp"
#include "checkpoints/hugging_face.hpp"
#include "checkpoints/values.hpp"
#include "tensor/host_copy.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

namespace konclave {

namespace {

namespace fs = std::filesystem;

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";

using WeightMap = std::map<std::string, std::string>;  // tensor -> file

WeightMap read_index(const fs::path& path) {
  try {
    return nlohmann::json::parse(read_text(path)).at("weight_map").get<WeightMap>();
  } catch (const nlohmann::json::exception& error) {
    fail(path.string() + " is no index of safetensors: " + error.what(), ExitCode::input);
  }
}

/// Whether a tensor may be there without a place in the model: tables that old files carry.
bool is_ignorable(const std::string& name) { return matches_glob("*rotary_emb.inv_freq", name); }

/// The type that a safetensors type is kept in; nothing for one that weights do not have.
std::optional<DType> kept_type(const std::string& dtype) {
  if (dtype == "BF16") return DType::bf16;
  if (dtype == "F32" || dtype == "F16") return DType::fp32;
  if (dtype == "F64") return DType::fp64;
  return {};
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return TensorInfo{"", DType::fp32, shape}.shape_text();
}

}  // namespace

HfFolder::HfFolder(const fs::path& folder, int sequence_length)
    : folder_(folder), definition_(read_hf_config(folder, sequence_length)) {
  open_files();
  tensors_ = hf_tensors(definition_, spelling());
  for (const HfTensor& wanted : tensors_) {
    infos_.push_back({wanted.name, stored_type(wanted), wanted.shape});
  }
  check_leftovers();
}

void HfFolder::open_files() {
  WeightMap index;
  std::set<std::string> names;
  if (fs::exists(folder_ / kSingleFile)) {
    names.insert(kSingleFile);
  } else {
    require(fs::exists(folder_ / kIndexFile),
            folder_.string() + " has neither " + kSingleFile + " nor " + kIndexFile,
            ExitCode::input);
    index = read_index(folder_ / kIndexFile);
    for (const auto& [weight, file] : index) names.insert(file);
  }
  for (const std::string& name : names) files_.push_back(SafetensorsFile::open(folder_ / name));
  for (const SafetensorsFile& file : files_) {
    for (const auto& [name, entry] : file.entries()) {
      const auto [earlier, added] = sources_.emplace(name, Source{&file, &entry});
      require(added,
              file.path().string() + ": tensor " + name + " is in " +
                  earlier->second.file->path().string() + " too",
              ExitCode::input);
    }
  }
  for (const auto& [weight, file] : index) {
    const auto found = sources_.find(weight);
    require(found != sources_.end() && found->second.file->path() == folder_ / file,
            (folder_ / file).string() + ": there is no tensor " + weight + ", as " + kIndexFile +
                " has it",
            ExitCode::input);
  }
}

HfSpelling HfFolder::spelling() const {
  const bool fused = std::any_of(sources_.begin(), sources_.end(), [](const auto& source) {
    return matches_glob("*.mlp.experts.gate_up_proj", source.first);
  });
  return fused ? HfSpelling::fused : HfSpelling::hub;
}

const HfFolder::Source& HfFolder::source(const HfSlice& slice) const {
  const auto found = sources_.find(slice.name);
  const std::string file = files_.size() == 1 ? files_[0].path().string() : folder_.string();
  require(found != sources_.end(), file + ": tensor " + slice.name + " is missing",
          ExitCode::input);
  const SafetensorsEntry& entry = *found->second.entry;
  require(entry.shape == slice.shape,
          found->second.file->path().string() + ": tensor " + slice.name + " has shape " +
              shape_text(entry.shape) + "; the config makes it " + shape_text(slice.shape),
          ExitCode::input);
  return found->second;
}

DType HfFolder::stored_type(const HfTensor& wanted) const {
  DType widest = DType::bf16;
  for (const HfSlice& slice : wanted.slices) {
    const Source& found = source(slice);
    const auto type = kept_type(found.entry->dtype);
    require(type.has_value(),
            found.file->path().string() + ": tensor " + slice.name + " has type " +
                found.entry->dtype + "; weights are F64, F32, F16 or BF16",
            ExitCode::input);
    if (size_of(*type) > size_of(widest)) widest = *type;
  }
  return widest;
}

void HfFolder::check_leftovers() const {
  std::set<std::string> used;
  for (const HfTensor& known : tensors_) {
    for (const HfSlice& slice : known.slices) used.insert(slice.name);
  }
  for (const auto& [name, source] : sources_) {
    if (used.contains(name) || is_ignorable(name)) continue;
    const std::string what = source.file->path().string() + ": tensor " + name;
    // Files of a model with tied embeddings may hold the matrix twice.
    const SafetensorsEntry* const twin =
        name == kHead && definition_.model.tie_embeddings ? sources_.at(kEmbedding).entry : nullptr;
    require(twin != nullptr, what + " has no place in the model of the config", ExitCode::input);
    require(
        twin->dtype == source.entry->dtype && twin->shape == source.entry->shape &&
            std::memcmp(twin->data, source.entry->data, twin->bytes) == 0,
        what + " differs from " + kEmbedding + ", though tie_word_embeddings says it is the same",
        ExitCode::input);
  }
}

const HfTensor& HfFolder::tensor(const std::string& name) const {
  const auto found = std::find_if(tensors_.begin(), tensors_.end(),
                                  [&](const HfTensor& known) { return known.name == name; });
  require(found != tensors_.end(), folder_.string() + " has no tensor " + name, ExitCode::input);
  return *found;
}

void HfFolder::read(const std::string& name, DType type, void* host) const {
  read(name, 0, TensorInfo{name, type, tensor(name).shape}.elements(), type, host);
}

void HfFolder::read(const std::string& name, std::int64_t first, std::int64_t count, DType type,
                    void* host) const {
  auto* target = static_cast<std::byte*>(host);
  std::int64_t begin = 0;  // of a slice within the tensor
  for (const HfSlice& slice : tensor(name).slices) {
    const std::int64_t from = std::max(first, begin);
    const std::int64_t part = std::min(first + count, begin + slice.count) - from;
    if (part > 0) {
      read_slice({slice.name, slice.shape, slice.first + from - begin, part}, type, target);
      target += part * static_cast<std::int64_t>(size_of(type));
    }
    begin += slice.count;
  }
}

void HfFolder::read_slice(const HfSlice& slice, DType type, void* target) const {
  const Source& found = source(slice);
  const SafetensorsEntry& entry = *found.entry;
  const auto width = static_cast<std::int64_t>(entry.bytes) / entry.elements();
  const void* values = entry.data + slice.first * width;
  const DType kept = *kept_type(entry.dtype);
  std::vector<float> widened;
  if (entry.dtype == "F16") {
    widened.resize(static_cast<std::size_t>(slice.count));
    widen_half(values, widened.data(), slice.count);
    values = widened.data();
  }
  if (const auto bad = find_non_finite(kept, values, slice.count)) {
    fail(found.file->path().string() + ": tensor " + slice.name +
             " has a NaN or infinite value (element " + std::to_string(slice.first + *bad) + ")",
         ExitCode::input);
  }
  convert_values(kept, values, type, target, slice.count);
}

void HfFolder::read(const ExecSpace& exec, const std::string& name,
                    const std::vector<std::int64_t>& shape, const Shard& shard,
                    const AnyView& target) const {
  require(tensor(name).shape == shape,
          folder_.string() + ": tensor " + name + " has shape " + shape_text(tensor(name).shape) +
              "; the model wants " + shape_text(shape),
          ExitCode::input);
  require(has_shape(target, shard.extent), "a shard is read into " + target.describe());
  std::vector<std::byte> host(target.bytes());
  for (const ShardRun& run : shard_runs(shape, shard)) {
    read(name, run.in_whole, run.count, target.type(),
         host.data() + static_cast<std::size_t>(run.in_shard) * size_of(target.type()));
  }
  copy_from_host(exec, host.data(), target);
}

}  // namespace konclave
