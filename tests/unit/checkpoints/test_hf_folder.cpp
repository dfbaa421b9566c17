#include "checkpoints/hugging_face.hpp"
#include "checkpoints/values.hpp"
#include "tensor/host_copy.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/tensors.hpp"
#include "tests/unit/checkpoints/hf_sample.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <limits>

namespace konclave {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRouter = "model.layers.0.block_sparse_moe.gate.weight";
constexpr const char* kExpert = "model.layers.1.block_sparse_moe.experts.5.w2.weight";

/// A copy of a Hugging Face folder to spoil.
class Copy {
 public:
  explicit Copy(const std::string& name = "mixtral/hf") {
    fs::copy(oracle(name), path(), fs::copy_options::recursive);
  }
  fs::path path() const { return folder_.path("hf"); }
  fs::path weights() const { return path() / "model.safetensors"; }

  /// Changes the tensors of model.safetensors.
  template <typename Change> void edit(Change&& change) const {
    EditableFile tensors = read_tensors(weights());
    change(tensors);
    write_tensors(weights(), tensors);
  }
  void expect_refused(const std::vector<std::string>& words) const {
    expect_error([&] { HfFolder(this->path()); }, ExitCode::input, words);
  }

 private:
  TemporaryFolder folder_;
};

std::vector<std::byte> read_as(const HfFolder& folder, const TensorInfo& tensor, DType type) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.elements()) * size_of(type));
  folder.read(tensor.name, type, bytes.data());
  return bytes;
}

/// Every tensor under Konclave's name equals the oracle's, and there are no others.
void expect_equals_oracle(const HfFolder& folder, const std::string& model) {
  const EditableFile expected = read_tensors(oracle(model + "/weights.safetensors"));
  ASSERT_EQ(folder.tensors().size(), expected.size());
  for (const TensorInfo& tensor : folder.tensors()) {
    const auto found = expected.find(tensor.name);
    ASSERT_NE(found, expected.end()) << tensor.name;
    EXPECT_EQ(tensor.shape, found->second.shape) << tensor.name;
    EXPECT_EQ(read_as(folder, tensor, DType::fp32), found->second.bytes) << tensor.name;
  }
}

TEST(HfFolder, HasTheOraclesTensors) {
  for (const char* const model : {"mixtral", "qwen2_moe", "llama", "llama_tied", "mistral"}) {
    SCOPED_TRACE(model);
    expect_equals_oracle(HfFolder(oracle(std::string(model) + "/hf")), model);
  }
}

TEST(HfFolder, ReadsShardsAndConverts) {
  const HfFolder folder(oracle("mixtral/hf_sharded"));
  const EditableFile exact = read_tensors(oracle("mixtral/weights.safetensors"));
  const ExecSpace exec;
  for (const TensorInfo& tensor : folder.tensors()) {
    EXPECT_EQ(tensor.type, DType::bf16);
    std::vector<std::byte> rounded(static_cast<std::size_t>(tensor.bytes()));
    convert_values(DType::fp32, exact.at(tensor.name).bytes.data(), DType::bf16, rounded.data(),
                   tensor.elements());
    EXPECT_EQ(read_as(folder, tensor, DType::bf16), rounded) << tensor.name;
  }
  Tensors memory(exec);
  const AnyView narrow = memory.poisoned(DType::bf16, 96, 32),
                wide = memory.poisoned(DType::fp64, 96, 32);
  const std::vector<std::int64_t> shape = {96, 32};
  folder.read(exec, "lm_head.weight", shape, Shard::whole(shape), narrow);
  folder.read(exec, "lm_head.weight", shape, Shard::whole(shape), wide);
  EXPECT_EQ(to_doubles(exec, narrow), to_doubles(exec, wide));
  const std::vector<std::int64_t> wrong = {96, 31};
  const AnyView other = memory.poisoned(DType::fp32, 96, 31);
  const auto read = [&](const char* name) {
    folder.read(exec, name, wrong, Shard::whole(wrong), other);
  };
  expect_error([&] { read("lm_head.weight"); }, ExitCode::input,
               {"lm_head.weight", "(96, 32)", "(96, 31)"});
  expect_error([&] { read("none.weight"); }, ExitCode::input, {"none.weight"});
}

TEST(HfFolder, ReadsPartsOfATensorThatIsStoredInPieces) {
  const Copy copy;
  const HfFolder folder(copy.path());
  const ExecSpace exec;
  Tensors memory(exec);
  const std::string name = "model.layers.0.moe.experts.gate_proj.weight";
  const auto info = std::find_if(folder.tensors().begin(), folder.tensors().end(),
                                 [&](const TensorInfo& tensor) { return tensor.name == name; });
  ASSERT_NE(info, folder.tensors().end());
  const int parts = static_cast<int>(info->shape[0]) / 2;
  std::vector<double> joined;
  for (int part = 0; part < parts; ++part) {
    const Shard shard = Shard::part(info->shape, 0, part, parts);
    const AnyView target = memory.poisoned(DType::fp64, 2, static_cast<int>(info->shape[1]),
                                           static_cast<int>(info->shape[2]));
    folder.read(exec, name, info->shape, shard, target);
    const std::vector<double> values = to_doubles(exec, target);
    joined.insert(joined.end(), values.begin(), values.end());
  }
  std::vector<double> whole(joined.size());
  folder.read(name, DType::fp64, whole.data());
  EXPECT_EQ(joined, whole);
}

TEST(HfFolder, ReadsTheFusedSpelling) {
  const Copy copy;
  const EditableFile konclave = read_tensors(oracle("mixtral/weights.safetensors"));
  copy.edit([&](EditableFile& tensors) {
    std::erase_if(tensors, [](const auto& item) {
      return item.first.find("block_sparse_moe") != std::string::npos;
    });
    for (const char* const layer : {"model.layers.0.", "model.layers.1."}) {
      const std::string moe = std::string(layer) + "moe.", mlp = std::string(layer) + "mlp.";
      tensors[mlp + "gate.weight"] = konclave.at(moe + "router.weight");
      tensors[mlp + "experts.down_proj"] = konclave.at(moe + "experts.down_proj.weight");
      const EditableTensor& gate = konclave.at(moe + "experts.gate_proj.weight");
      const EditableTensor& up = konclave.at(moe + "experts.up_proj.weight");
      EditableTensor fused{"F32", {8, 24, 32}, {}};
      const std::ptrdiff_t size = 12 * 32 * 4;
      for (std::ptrdiff_t expert = 0; expert < 8; ++expert) {
        for (const EditableTensor* half : {&gate, &up}) {
          const auto first = half->bytes.begin() + expert * size;
          fused.bytes.insert(fused.bytes.end(), first, first + size);
        }
      }
      tensors[mlp + "experts.gate_up_proj"] = fused;
    }
  });
  expect_equals_oracle(HfFolder(copy.path()), "mixtral");
}

TEST(HfFolder, WidensHalfPrecision) {
  const std::vector<float> values = {0, -1.5F, 65504, 0x1.0p-14F, 0.333251953125F, -2048};
  EditableTensor tensor = tensor_of("F16", {6}, values);
  // Subnormals: the smallest and the largest one.
  std::vector<float> widened(8);
  const std::uint16_t tiny[2] = {0x0001, 0x83ff};
  tensor.bytes.insert(tensor.bytes.end(), reinterpret_cast<const std::byte*>(tiny),
                      reinterpret_cast<const std::byte*>(tiny + 2));
  widen_half(tensor.bytes.data(), widened.data(), 8);
  std::vector<float> expected = values;
  expected.insert(expected.end(), {0x1.0p-24F, -0x1.ff8p-15F});
  EXPECT_EQ(widened, expected);

  const std::uint16_t infinite[2] = {0xfc00, 0x7e00};
  widen_half(infinite, widened.data(), 2);
  EXPECT_EQ(widened[0], -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(widened[1]));

  const Copy copy("llama/hf");
  std::vector<float> norm(24, 0.5F);
  copy.edit([&](auto& tensors) { tensors["model.norm.weight"] = tensor_of("F16", {24}, norm); });
  const HfFolder folder(copy.path());
  EXPECT_EQ(read_as(folder, {"model.norm.weight", DType::fp32, {24}}, DType::fp32),
            tensor_of("F32", {24}, norm).bytes);
}

TEST(HfFolder, NamesMissingAndSuperfluousTensors) {
  const Copy missing;
  missing.edit([](auto& tensors) { tensors.erase(kExpert); });
  missing.expect_refused({kExpert, "missing", "model.safetensors"});

  const Copy superfluous;
  superfluous.edit([](auto& tensors) {
    tensors["model.layers.2.block_sparse_moe.gate.weight"] = tensors.at(kRouter);
  });
  superfluous.expect_refused(
      {"model.layers.2.block_sparse_moe.gate.weight", "no place", "model.safetensors"});

  const Copy ignorable("llama/hf");
  ignorable.edit([](auto& tensors) {
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = tensor_of("F32", {1}, {1});
  });
  EXPECT_NO_THROW(HfFolder(ignorable.path()));
}

TEST(HfFolder, TakesASecondCopyOfTiedEmbeddings) {
  const Copy copy("llama_tied/hf");
  copy.edit(
      [](auto& tensors) { tensors["lm_head.weight"] = tensors.at("model.embed_tokens.weight"); });
  expect_equals_oracle(HfFolder(copy.path()), "llama_tied");
  copy.edit([](auto& tensors) { tensors.at("lm_head.weight").bytes[9] ^= std::byte{1}; });
  copy.expect_refused({"lm_head.weight", "differs", "tie_word_embeddings"});
}

TEST(HfFolder, NamesWrongShapesAndTypes) {
  const Copy shape;
  shape.edit([](auto& tensors) { tensors.at(kExpert).shape = {12, 32}; });
  shape.expect_refused({kExpert, "(12, 32)", "(32, 12)", "model.safetensors"});

  const Copy type;
  type.edit([](auto& tensors) {
    EditableTensor& tensor = tensors.at(kRouter);
    tensor.dtype = "I32";
  });
  type.expect_refused({kRouter, "I32", "model.safetensors"});
}

TEST(HfFolder, NamesATensorWithNaN) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    const Copy copy;
    copy.edit([&](auto& tensors) {
      std::memcpy(tensors.at(kExpert).bytes.data() + 4 * 7, &bad, sizeof bad);
    });
    const HfFolder folder(copy.path());
    expect_error(
        [&] {
          read_as(folder, {"model.layers.1.moe.experts.down_proj.weight", DType::fp32, {8, 32, 12}},
                  DType::bf16);
        },
        ExitCode::input, {kExpert, "NaN", "element 7", "model.safetensors"});
  }
}

TEST(HfFolder, NamesABrokenFile) {
  const Copy truncated;
  fs::resize_file(truncated.weights(), fs::file_size(truncated.weights()) - 1);
  truncated.expect_refused({"model.safetensors", "truncated"});

  const Copy none;
  fs::remove(none.weights());
  none.expect_refused({none.path().string(), "model.safetensors.index.json"});

  const Copy shard_missing("mixtral/hf_sharded");
  fs::remove(shard_missing.path() / "model-00002-of-00002.safetensors");
  shard_missing.expect_refused({"model-00002-of-00002.safetensors", "No such file"});
}

TEST(HfFolder, ChecksTheIndex) {
  const std::string second = "model-00002-of-00002.safetensors";
  const Copy elsewhere("mixtral/hf_sharded");
  const fs::path path = elsewhere.path() / "model.safetensors.index.json";
  nlohmann::json index = read_json(path);
  index.at("weight_map").at("lm_head.weight") = second;
  write_json(path, index);
  elsewhere.expect_refused({"lm_head.weight", second});

  std::ofstream(path) << "{}";
  elsewhere.expect_refused({"model.safetensors.index.json"});

  const Copy twice("mixtral/hf_sharded");
  EditableFile tensors = read_tensors(twice.path() / second);
  tensors["lm_head.weight"] =
      read_tensors(oracle("mixtral/hf_sharded/model-00001-of-00002.safetensors"))
          .at("lm_head.weight");
  write_tensors(twice.path() / second, tensors);
  twice.expect_refused({"lm_head.weight", "model-00001-of-00002.safetensors", second});
}

}  // namespace
}  // namespace konclave
