#include "base/file.hpp"
#include "checkpoints/checksum.hpp"
#include "checkpoints/history.hpp"
#include "checkpoints/reader.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/unit/checkpoints/sample.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <fstream>
#include <sys/stat.h>
#include <unistd.h>

namespace konclave {
namespace {

namespace fs = std::filesystem;

const std::vector<std::string> kFiles = {kTensorFile, kDeckFile, kStateFile, kProvenanceFile,
                                         kManifestFile};

void open_and_verify(const fs::path& folder) { Checkpoint::open(folder).verify(); }

/// Byte offset of a sample tensor's data in tensors.h5.
std::int64_t data_offset(const fs::path& folder, const SampleTensor& tensor) {
  const std::string file = read_text(folder / kTensorFile);
  const std::string_view bytes(reinterpret_cast<const char*>(tensor.bytes.data()),
                               tensor.bytes.size());
  return static_cast<std::int64_t>(file.find(bytes));
}

TEST(Damage, AnyFlippedBitInAnyFileIsFound) {
  const TemporaryFolder temporary;
  const fs::path folder = save_sample(temporary.path("c"), 1);
  for (const std::string& name : kFiles) {
    const auto size = static_cast<std::int64_t>(fs::file_size(folder / name));
    // All of a small file; of the large one the metadata at its start and samples of the rest.
    for (std::int64_t byte = 0; byte < size; byte += byte < 2048 ? 1 : 7919) {
      const int bit = static_cast<int>(byte % 8);
      flip_bit(folder / name, byte, bit);
      SCOPED_TRACE(name + " byte " + std::to_string(byte));
      expect_error([&] { open_and_verify(folder); }, ExitCode::input, {name});
      flip_bit(folder / name, byte, bit);
    }
  }
  open_and_verify(folder);
}

TEST(Damage, IsNamedByTensorAndBlock) {
  const TemporaryFolder temporary;
  const fs::path folder = save_sample(temporary.path("c"), 1);
  const std::vector<SampleTensor> tensors = sample_tensors(1);
  const std::int64_t offset = data_offset(folder, tensors[0]);
  flip_bit(folder / kTensorFile, offset + kChecksumBlock + 5, 3);

  const Checkpoint checkpoint = Checkpoint::open(folder);
  const std::vector<std::string> words = {"model/large", "block 1 of 2", "tensors.h5"};
  expect_error([&] { checkpoint.verify(); }, ExitCode::input, words);

  // What is read is checked, and nothing else.
  std::vector<std::byte> host(tensors[0].bytes.size());
  const std::int64_t in_block = kChecksumBlock / 4;
  checkpoint.read("model/large", 0, in_block, host.data());
  checkpoint.read(tensors[1].info.name, host.data());
  expect_error([&] { checkpoint.read("model/large", in_block, 1, host.data()); }, ExitCode::input,
               words);
  expect_error([&] { checkpoint.read("model/large", host.data()); }, ExitCode::input, words);
}

TEST(Damage, TruncatedAndMissingFilesAreNamed) {
  const TemporaryFolder temporary;
  for (const std::string& name : kFiles) {
    const fs::path folder = save_sample(temporary.path(name), 1), path = folder / name;
    fs::resize_file(path, fs::file_size(path) - 1);
    expect_error([&] { open_and_verify(folder); }, ExitCode::input, {path.string()});
    fs::resize_file(path, 0);
    expect_error([&] { open_and_verify(folder); }, ExitCode::input, {path.string()});
    fs::remove(path);
    expect_error([&] { open_and_verify(folder); }, ExitCode::input,
                 {path.string(), "No such file or directory"});
  }
  expect_error([&] { open_and_verify(temporary.path("nowhere")); }, ExitCode::input, {"nowhere"});
}

TEST(Damage, LongerFilesAreFound) {
  const TemporaryFolder temporary;
  for (const std::string& name : kFiles) {
    const fs::path folder = save_sample(temporary.path(name), 1);
    std::ofstream(folder / name, std::ios::app) << ' ';
    expect_error([&] { open_and_verify(folder); }, ExitCode::input, {name});
  }
}

TEST(Damage, AFileWithoutPermissionIsNamed) {
  if (::geteuid() == 0) GTEST_SKIP() << "root reads everything";
  const TemporaryFolder temporary;
  const fs::path folder = save_sample(temporary.path("c"), 1);
  ::chmod((folder / kTensorFile).c_str(), 0);
  expect_error([&] { open_and_verify(folder); }, ExitCode::input,
               {"tensors.h5", "Permission denied"});
}

/// Makes a checkpoint look like one of a later version: another format and a checksum that fits.
void make_newer(const fs::path& folder) {
  auto manifest = nlohmann::json::parse(read_text(folder / kManifestFile));
  manifest["format"] = kCheckpointFormat + 1;
  manifest["xxh3_128"] = std::string(32, '0');
  manifest["xxh3_128"] = digest(std::string_view(manifest.dump()));
  replace_text(folder / kManifestFile, manifest.dump());
}

TEST(Damage, ALaterFormatIsRefused) {
  const TemporaryFolder temporary;
  save_sample(temporary.path("c"), 1);
  const fs::path folder = save_sample(temporary.path("c"), 2);
  make_newer(folder);
  EXPECT_THROW(open_and_verify(folder), NewerFormat);
  expect_error([&] { open_and_verify(folder); }, ExitCode::input, {"format 2", "formats up to 1"});
  EXPECT_THROW(newest_good(temporary.path("c"), [](const std::string&) {}), NewerFormat);
}

TEST(Damage, TheNewestGoodOneIsTaken) {
  const TemporaryFolder temporary;
  const fs::path checkpoints = temporary.path("c");
  for (const int step : {5, 10, 20, 100}) save_sample(checkpoints, step);
  std::vector<std::string> reports;
  const auto report = [&](const std::string& text) { reports.push_back(text); };
  EXPECT_EQ(newest_good(checkpoints, report)->step(), 100);
  EXPECT_TRUE(reports.empty());

  const std::vector<SampleTensor> tensors = sample_tensors(100);
  const fs::path newest = checkpoints / "step-00000100";
  flip_bit(newest / kTensorFile, data_offset(newest, tensors[2]), 0);
  fs::remove(checkpoints / "step-00000020" / kManifestFile);
  EXPECT_EQ(newest_good(checkpoints, report)->step(), 10);
  ASSERT_EQ(reports.size(), 2U);
  EXPECT_NE(reports[0].find(tensors[2].info.name + ", block 0 of 1"), std::string::npos)
      << reports[0];
  EXPECT_NE(reports[1].find("step-00000020/manifest.json"), std::string::npos) << reports[1];

  for (const int step : {5, 10}) fs::remove(checkpoints / checkpoint_name(step) / kDeckFile);
  EXPECT_FALSE(newest_good(checkpoints, report));
  EXPECT_FALSE(newest_good(temporary.path("none"), report));
}

}  // namespace
}  // namespace konclave
