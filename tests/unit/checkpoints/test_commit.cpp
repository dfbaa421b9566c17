#include "base/file.hpp"
#include "checkpoints/folder_attempt.hpp"
#include "checkpoints/history.hpp"
#include "checkpoints/reader.hpp"
#include "checkpoints/writer.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/unit/checkpoints/sample.hpp"

#include <gtest/gtest.h>

#include <csignal>
#include <stdexcept>
#include <sys/resource.h>
#include <sys/stat.h>

namespace konclave {
namespace {

namespace fs = std::filesystem;

/// While it lives no file can grow beyond `bytes`: a full disk that needs no root.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

/// The state of a folder with one good checkpoint, of step 1, and nothing else.
void expect_only_step_1(const fs::path& checkpoints) {
  EXPECT_EQ(names_in(checkpoints), "latest step-00000001");
  EXPECT_EQ(read_text(checkpoints / "latest"), "step-00000001\n");
  Checkpoint::open(checkpoints / "step-00000001").verify();
}

TEST(Commit, LatestFollows) {
  const TemporaryFolder temporary;
  const fs::path checkpoints = temporary.path("run/checkpoints");
  save_sample(checkpoints, 1);
  expect_only_step_1(checkpoints);
  save_sample(checkpoints, 2);
  EXPECT_EQ(names_in(checkpoints), "latest step-00000001 step-00000002");
  EXPECT_EQ(read_text(checkpoints / "latest"), "step-00000002\n");
}

TEST(Commit, AFullDiskLeavesTheOldOne) {
  const TemporaryFolder temporary;
  const fs::path checkpoints = temporary.path("c");
  save_sample(checkpoints, 1);
  const std::vector<SampleTensor> tensors = sample_tensors(2);
  // Too little for HDF5's metadata, for the tensors, for both.
  for (const rlim_t limit : {1000, 100'000, 1'500'000}) {
    SCOPED_TRACE(limit);
    const FileSizeLimit full(limit);
    bool filled = false;
    CheckpointContent content = content_of(2, tensors);
    content.tensors[0].fill = [&](void*) { filled = true; };
    expect_error([&] { write_checkpoint(checkpoints, content); }, ExitCode::io,
                 {"tensors.h5", "File too large"});
    EXPECT_FALSE(filled) << "space is reserved before any data is made";
    expect_only_step_1(checkpoints);
  }
  // The disk that fills up later.
  CheckpointContent content = content_of(2, tensors);
  content.deck = std::string(4'000'000, '#');
  const FileSizeLimit full(3'000'000);
  expect_error([&] { write_checkpoint(checkpoints, content); }, ExitCode::io,
               {"deck.toml", "File too large"});
  expect_only_step_1(checkpoints);
}

TEST(Commit, SpaceIsTakenBeforeTheData) {
  const TemporaryFolder temporary;
  const fs::path checkpoints = temporary.path("c");
  const std::vector<SampleTensor> tensors = sample_tensors();
  CheckpointContent content = content_of(1, tensors);
  content.tensors[0].fill = [&](void*) {
    const fs::path file = checkpoints / list_folder(checkpoints).front() / kTensorFile;
    struct stat status {};
    ASSERT_EQ(::stat(file.c_str(), &status), 0) << file;
    EXPECT_GE(status.st_blocks * 512, status.st_size);
    EXPECT_GT(status.st_size, tensors[0].info.bytes());
  };
  write_checkpoint(checkpoints, content);
}

TEST(Commit, AFailureWhileFillingLeavesTheOldOne) {
  const TemporaryFolder temporary;
  const fs::path checkpoints = temporary.path("c");
  save_sample(checkpoints, 1);
  const std::vector<SampleTensor> tensors = sample_tensors(2);
  CheckpointContent content = content_of(2, tensors);
  content.tensors[3].fill = [](void*) { throw std::runtime_error("device lost"); };
  EXPECT_THROW(write_checkpoint(checkpoints, content), std::runtime_error);
  expect_only_step_1(checkpoints);
}

TEST(Commit, AFolderThatCannotBeMadeIsNamed) {
  const TemporaryFolder temporary;
  temporary.write("file", "no folder");
  expect_error([&] { save_sample(temporary.path("file/checkpoints"), 1); }, ExitCode::io,
               {temporary.path("file/checkpoints"), "Not a directory"});
}

TEST(Commit, TheSameStepIsReplaced) {
  const TemporaryFolder temporary;
  const fs::path checkpoints = temporary.path("c");
  save_sample(checkpoints, 1);
  const std::vector<SampleTensor> tensors = sample_tensors(99);
  write_checkpoint(checkpoints, content_of(1, tensors));
  expect_only_step_1(checkpoints);
  std::vector<std::byte> host(tensors[0].bytes.size());
  Checkpoint::open(checkpoints / "step-00000001").read("model/large", host.data());
  EXPECT_EQ(host, tensors[0].bytes);
}

TEST(Commit, WhatReplacesIsVerifiedFirst) {
  const TemporaryFolder temporary;
  const fs::path target = temporary.path("folder");
  temporary.write("folder/old", "");
  {
    FolderAttempt attempt(target);
    write_text(attempt.folder() / "new", "");
    EXPECT_THROW(attempt.commit([] { throw std::runtime_error("not good"); }), std::runtime_error);
  }
  EXPECT_EQ(names_in(target), "old");
  FolderAttempt attempt(target);
  write_text(attempt.folder() / "new", "");
  attempt.commit();
  EXPECT_EQ(names_in(target), "new");
  EXPECT_EQ(names_in(temporary.path("")), "folder");
}

TEST(Commit, KeepsTheNewestAndEveryNth) {
  const TemporaryFolder temporary;
  const fs::path checkpoints = temporary.path("c");
  for (const int step : {100, 150, 200, 250, 300, 350}) save_sample(checkpoints, step);
  remove_old_checkpoints(checkpoints, 6, 0);
  EXPECT_EQ(list_checkpoints(checkpoints).size(), 6U);
  remove_old_checkpoints(checkpoints, 2, 100);
  EXPECT_EQ(names_in(checkpoints),
            "latest step-00000100 step-00000200 step-00000300 step-00000350");
  remove_old_checkpoints(checkpoints, 1, 0);
  EXPECT_EQ(names_in(checkpoints), "latest step-00000350");
  remove_old_checkpoints(checkpoints, 1, 0);
  EXPECT_EQ(names_in(checkpoints), "latest step-00000350");
}

TEST(Commit, NothingIsDeletedWithoutANewerGoodOne) {
  const TemporaryFolder temporary;
  const fs::path checkpoints = temporary.path("c");
  for (const int step : {1, 2, 3}) save_sample(checkpoints, step);
  fs::remove(checkpoints / "step-00000003" / kStateFile);
  remove_old_checkpoints(checkpoints, 1, 0);
  EXPECT_EQ(list_checkpoints(checkpoints).size(), 3U);
  remove_old_checkpoints(checkpoints, 2, 0);  // step 2 is good
  EXPECT_EQ(names_in(checkpoints), "latest step-00000002 step-00000003");
}

TEST(Commit, StaleAttemptsGoAndWhatWasMovedAsideComesBack) {
  const TemporaryFolder temporary;
  const fs::path checkpoints = temporary.path("c");
  save_sample(checkpoints, 1);
  save_sample(checkpoints, 2);
  // Killed between the two renames of a replacement, after them, and while writing.
  fs::rename(checkpoints / "step-00000001", checkpoints / ".step-00000001.old-host-1-0");
  fs::create_directories(checkpoints / ".step-00000002.old-host-1-0");
  temporary.write("c/.step-00000003.tmp-host-1-0/tensors.h5", "half");
  temporary.write("c/.latest.tmp-host-1", "step");
  temporary.write("c/.nfs0001", "not ours");
  remove_stale_attempts(checkpoints);
  EXPECT_EQ(names_in(checkpoints), ".nfs0001 latest step-00000001 step-00000002");
  Checkpoint::open(checkpoints / "step-00000001").verify();
  remove_stale_attempts(temporary.path("none"));
}

TEST(Commit, ACheckpointAtAPathOfItsOwnReplacesNothing) {
  const TemporaryFolder temporary;
  const std::vector<SampleTensor> tensors = sample_tensors();
  write_checkpoint_at(temporary.path("converted/"), content_of(0, tensors));
  Checkpoint::open(temporary.path("converted")).verify();
  EXPECT_EQ(names_in(temporary.path("")), "converted");
  expect_error([&] { write_checkpoint_at(temporary.path("converted"), content_of(0, tensors)); },
               ExitCode::io, {"converted", "exists already"});
}

}  // namespace
}  // namespace konclave
