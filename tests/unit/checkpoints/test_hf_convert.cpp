#include "checkpoints/hugging_face.hpp"
#include "checkpoints/writer.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/unit/checkpoints/hf_sample.hpp"
#include "tests/unit/checkpoints/sample.hpp"

#include <gtest/gtest.h>

namespace konclave {
namespace {

namespace fs = std::filesystem;

TEST(HfConvert, TheCheckpointHasTheOraclesTensors) {
  const TemporaryFolder temporary;
  const HfFolder source(oracle("mixtral/hf"));
  convert_from_hf(source, temporary.path("checkpoint"), "# the deck\n");
  const Checkpoint checkpoint = Checkpoint::open(temporary.path("checkpoint"));
  checkpoint.verify();
  EXPECT_EQ(checkpoint.step(), 0);
  EXPECT_EQ(checkpoint.deck(), "# the deck\n");
  const EditableFile expected = read_tensors(oracle("mixtral/weights.safetensors"));
  EXPECT_EQ(checkpoint.manifest().tensors.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    const TensorInfo& info = checkpoint.info(kModelGroup + name);
    EXPECT_EQ(info.type, DType::fp32);
    EXPECT_EQ(info.shape, tensor.shape);
    std::vector<std::byte> bytes(tensor.bytes.size());
    checkpoint.read(info.name, bytes.data());
    EXPECT_EQ(bytes, tensor.bytes) << name;
  }
}

TEST(HfConvert, ThereAndBackIsBitExact) {
  for (const char* const model : {"mixtral/hf", "mixtral/hf_sharded", "qwen2_moe/hf", "llama/hf",
                                  "llama_tied/hf", "mistral/hf"}) {
    SCOPED_TRACE(model);
    const TemporaryFolder temporary;
    const HfFolder source(oracle(model));
    convert_from_hf(source, temporary.path("checkpoint"), "");
    convert_to_hf(Checkpoint::open(temporary.path("checkpoint")), source.definition(),
                  temporary.path("back"));
    EXPECT_EQ(names_in(temporary.path("back")), "config.json model.safetensors");
    EXPECT_EQ(read_tensors(temporary.path("back/model.safetensors")),
              read_all_tensors(oracle(model)));
  }
}

TEST(HfConvert, HalfPrecisionBecomesSingle) {
  const TemporaryFolder temporary;
  fs::copy(oracle("llama/hf"), temporary.path("hf"), fs::copy_options::recursive);
  EditableFile tensors = read_tensors(temporary.path("hf/model.safetensors"));
  const std::vector<float> values(24, -0.75F);
  tensors["model.norm.weight"] = tensor_of("F16", {24}, values);
  write_tensors(temporary.path("hf/model.safetensors"), tensors);
  convert_from_hf(HfFolder(temporary.path("hf")), temporary.path("checkpoint"), "");
  const Checkpoint checkpoint = Checkpoint::open(temporary.path("checkpoint"));
  EXPECT_EQ(checkpoint.info("model/model.norm.weight").type, DType::fp32);
  std::vector<float> read(24);
  checkpoint.read("model/model.norm.weight", read.data());
  EXPECT_EQ(read, values);
}

TEST(HfConvert, SplitsIntoShards) {
  const TemporaryFolder temporary;
  const HfFolder source(oracle("mixtral/hf"));
  convert_from_hf(source, temporary.path("checkpoint"), "");
  const fs::path back = temporary.path("back");
  convert_to_hf(Checkpoint::open(temporary.path("checkpoint")), source.definition(), back, 50'000);
  EXPECT_EQ(names_in(back),
            "config.json model-00001-of-00003.safetensors model-00002-of-00003.safetensors "
            "model-00003-of-00003.safetensors model.safetensors.index.json");
  for (int shard = 1; shard <= 3; ++shard) {
    const std::string name = "model-0000" + std::to_string(shard) + "-of-00003.safetensors";
    std::size_t bytes = 0;
    for (const auto& [tensor, content] : read_tensors(back / name)) bytes += content.bytes.size();
    EXPECT_LE(bytes, 50'000U);
  }
  EXPECT_EQ(read_all_tensors(back), read_all_tensors(oracle("mixtral/hf")));
  EXPECT_EQ(read_json(back / "model.safetensors.index.json").at("metadata").at("total_size"),
            137'856);
  EXPECT_NO_THROW(HfFolder{back}) << "index and shards agree";
}

TEST(HfConvert, LeavesNothingBehindWhenTheSourceIsBad) {
  const TemporaryFolder temporary;
  fs::copy(oracle("mixtral/hf"), temporary.path("hf"), fs::copy_options::recursive);
  EditableFile tensors = read_tensors(temporary.path("hf/model.safetensors"));
  tensors.at("model.norm.weight") = tensor_of("F32", {32}, std::vector<float>(32, NAN));
  write_tensors(temporary.path("hf/model.safetensors"), tensors);
  const HfFolder source(temporary.path("hf"));
  expect_error([&] { convert_from_hf(source, temporary.path("checkpoint"), ""); }, ExitCode::input,
               {"model.norm.weight", "NaN"});
  EXPECT_EQ(names_in(temporary.path("")), "hf");
}

TEST(HfConvert, ReplacesNothing) {
  const TemporaryFolder temporary;
  temporary.write("taken/file", "");
  const HfFolder source(oracle("llama/hf"));
  expect_error([&] { convert_from_hf(source, temporary.path("taken"), ""); }, ExitCode::io,
               {"taken", "exists already"});
  convert_from_hf(source, temporary.path("checkpoint"), "");
  const Checkpoint checkpoint = Checkpoint::open(temporary.path("checkpoint"));
  expect_error([&] { convert_to_hf(checkpoint, source.definition(), temporary.path("taken")); },
               ExitCode::io, {"taken", "exists already"});
  EXPECT_EQ(names_in(temporary.path("taken")), "file");
}

TEST(HfConvert, AccountsForEveryTensorOfTheCheckpoint) {
  const TemporaryFolder temporary;
  const HfFolder source(oracle("llama/hf"));
  convert_from_hf(source, temporary.path("checkpoint"), "");
  const Checkpoint checkpoint = Checkpoint::open(temporary.path("checkpoint"));
  const auto expect_refused = [&](auto change, const std::vector<std::string>& words) {
    ModelDefinition definition = source.definition();
    change(definition);
    expect_error([&] { convert_to_hf(checkpoint, definition, temporary.path("out")); },
                 ExitCode::input, words);
    EXPECT_EQ(names_in(temporary.path("")), "checkpoint");
  };
  expect_refused([](auto& definition) { definition.model.num_layers = 3; },
                 {"model/model.layers.2.input_layernorm.weight"});
  expect_refused([](auto& definition) { definition.model.num_layers = 1; },
                 {"model/model.layers.1.", "no place"});
  expect_refused([](auto& definition) { definition.model.vocab_size = 65; },
                 {"model/model.embed_tokens.weight", "(64, 24)", "(65, 24)"});
}

}  // namespace
}  // namespace konclave
