#include "checkpoints/history.hpp"
#include "checkpoints/inspect.hpp"
#include "checkpoints/reader.hpp"
#include "checkpoints/writer.hpp"
#include "tensor/host_copy.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/tensors.hpp"
#include "tests/unit/checkpoints/sample.hpp"

#include <gtest/gtest.h>

namespace konclave {
namespace {

std::vector<std::byte> read_all(const Checkpoint& checkpoint, const TensorInfo& info) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(info.bytes()));
  checkpoint.read(info.name, bytes.data());
  return bytes;
}

TEST(Checkpoint, GivesBackEveryBitOfEveryTypeAndRank) {
  const TemporaryFolder folder;
  const std::vector<SampleTensor> tensors = sample_tensors();
  write_checkpoint(folder.path("checkpoints"), content_of(1000, tensors));

  const Checkpoint checkpoint = Checkpoint::open(folder.path("checkpoints/step-00001000"));

  checkpoint.verify();
  EXPECT_EQ(checkpoint.step(), 1000);
  EXPECT_EQ(checkpoint.deck(), "[run]\nname = \"sample\"\n");
  EXPECT_EQ(checkpoint.state().at("samples"), 8000);
  EXPECT_EQ(checkpoint.state().at("third").get<double>(), 1.0 / 3);
  ASSERT_EQ(checkpoint.manifest().tensors.size(), tensors.size());
  for (const SampleTensor& tensor : tensors) {
    ASSERT_TRUE(checkpoint.has(tensor.info.name));
    EXPECT_EQ(checkpoint.info(tensor.info.name).type, tensor.info.type);
    EXPECT_EQ(checkpoint.info(tensor.info.name).shape, tensor.info.shape);
    EXPECT_EQ(read_all(checkpoint, tensor.info), tensor.bytes) << tensor.info.name;
  }
  EXPECT_FALSE(checkpoint.has("model/none"));
  expect_error([&] { checkpoint.info("model/none"); }, ExitCode::input, {"model/none"});
}

TEST(Checkpoint, ReadsAnyRunOfElements) {
  const TemporaryFolder folder;
  const Checkpoint checkpoint = Checkpoint::open(save_sample(folder.path("c"), 1));
  const SampleTensor large = sample_tensors(1).front();
  const std::int64_t in_block = kChecksumBlock / 4, elements = large.info.elements();
  const std::vector<std::pair<std::int64_t, std::int64_t>> runs = {{0, 1},
                                                                   {0, in_block},
                                                                   {in_block - 1, 2},
                                                                   {in_block, elements - in_block},
                                                                   {5, elements - 5},
                                                                   {elements - 1, 1},
                                                                   {elements, 0}};
  for (const auto& [first, count] : runs) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(4 * count));
    checkpoint.read(large.info.name, first, count, bytes.data());
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), large.bytes.begin() + 4 * first))
        << first << " " << count;
  }
  std::vector<std::byte> two(8);
  expect_error([&] { checkpoint.read(large.info.name, elements - 1, 2, two.data()); },
               ExitCode::internal, {"outside"});
}

TEST(Checkpoint, ConvertsToTheTypeOfTheView) {
  const TemporaryFolder folder;
  const ExecSpace exec;
  Tensors memory(exec);
  const std::vector<double> values = {1, -1.00390625, 3.0000001, 1e30};  // the second is a tie
  CheckpointContent content;
  for (const DType type : {DType::bf16, DType::fp32, DType::fp64}) {
    const AnyView view = memory.values(type, values, 2, 2);
    content.tensors.push_back({{std::string(name_of(type)), type, {2, 2}},
                               [=](void* host) { copy_to_host(exec, view, host); }});
  }
  write_checkpoint(folder.path("c"), content);
  const Checkpoint checkpoint = Checkpoint::open(folder.path("c/step-00000000"));

  for (const DType from : {DType::bf16, DType::fp32, DType::fp64}) {
    for (const DType to : {DType::bf16, DType::fp32, DType::fp64}) {
      const AnyView target = memory.poisoned(to, 2, 2);
      checkpoint.read(exec, std::string(name_of(from)), {2, 2}, Shard::whole({2, 2}), target);
      const DType narrow = size_of(from) < size_of(to) ? from : to;
      EXPECT_EQ(to_doubles(exec, target), to_doubles(exec, memory.values(narrow, values, 2, 2)))
          << name_of(from) << " to " << name_of(to);
      const AnyView column = memory.poisoned(to, 2, 1);
      checkpoint.read(exec, std::string(name_of(from)), {2, 2}, Shard::part({2, 2}, 1, 1, 2),
                      column);
      const std::vector<double> all = to_doubles(exec, target);
      EXPECT_EQ(to_doubles(exec, column), (std::vector<double>{all[1], all[3]}));
    }
  }
  const AnyView other = memory.poisoned(DType::fp32, 4, 1);
  expect_error(
      [&] {
        checkpoint.read(exec, "fp32", {4, 1}, Shard::whole({4, 1}), other);
      },
      ExitCode::input, {"fp32", "(2, 2)", "(4, 1)", "step-00000000"});
}

TEST(Checkpoint, IsInspected) {
  const TemporaryFolder folder;
  const std::string text = inspect(Checkpoint::open(save_sample(folder.path("c"), 70)));
  for (const char* const word :
       {"step-00000070", "format      1", "step        70", "tensors.h5", "model/bf16.experts",
        "bfloat16", "(2, 3, 5)", "60 B", "optimizer/exp_avg ", "10 tensors"}) {
    EXPECT_NE(text.find(word), std::string::npos) << word << " is missing in\n" << text;
  }
}

TEST(Checkpoint, NamesCarryTheStep) {
  EXPECT_EQ(checkpoint_name(7), "step-00000007");
  EXPECT_EQ(checkpoint_name(1234567890), "step-1234567890");
  EXPECT_EQ(parse_checkpoint_name("step-00000007"), 7);
  EXPECT_EQ(parse_checkpoint_name("step-1234567890"), 1234567890);
  for (const char* const name :
       {"step-7", "step-0000000x", "step-", "latest", "step-00000007.tmp"}) {
    EXPECT_FALSE(parse_checkpoint_name(name)) << name;
  }
}

/// Not a comparison: leaves a checkpoint for the test in Python that reads it with h5py.
TEST(Checkpoint, LeavesASampleForH5py) {
  const std::filesystem::path folder = KONCLAVE_H5PY_SAMPLE;
  std::filesystem::remove_all(folder);
  CheckpointContent content;
  content.tensors.push_back({{"model/bf16", DType::bf16, {2, 3}}, [](void* host) {
                               auto* const values = static_cast<Bf16*>(host);
                               for (int i = 0; i < 6; ++i)
                                 values[i] = Bf16(static_cast<float>(i) - 2.5F);
                             }});
  content.tensors.push_back({{"optimizer/exp_avg/fp32", DType::fp32, {4}}, [](void* host) {
                               auto* const values = static_cast<float*>(host);
                               for (int i = 0; i < 4; ++i)
                                 values[i] = 0.25F * static_cast<float>(i);
                             }});
  content.tensors.push_back({{"model/fp64", DType::fp64, {1, 2, 2}}, [](void* host) {
                               auto* const values = static_cast<double*>(host);
                               for (int i = 0; i < 4; ++i) values[i] = 0.1 * i;
                             }});
  write_checkpoint(folder, content);
}

}  // namespace
}  // namespace konclave
