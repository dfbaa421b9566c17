#include "base/file.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <cstring>

namespace konclave {
namespace {

TEST(File, ReadsAndWritesAtAnyPlace) {
  const TemporaryFolder folder;
  const std::string path = folder.path("file");
  File file = File::create(path);
  file.write(3, "def", 3);
  file.write(0, "abc", 3);
  EXPECT_EQ(file.size(), 6);
  file.resize(5);
  file.reserve(8);
  EXPECT_EQ(file.size(), 8);
  file.sync();
  file.close();
  EXPECT_EQ(read_text(path), std::string("abcde\0\0\0", 8));

  File moved = File::open(path);
  moved = File::open(path);
  char two[2];
  moved.read(1, two, 2);
  EXPECT_EQ(std::string(two, 2), "bc");
  expect_error([&] { moved.read(7, two, 2); }, ExitCode::input, {path, "ends before byte 9"});
}

TEST(File, ErrorsNamePathAndReason) {
  const TemporaryFolder folder;
  const std::string path = folder.write("there", "old"), missing = folder.path("missing");
  expect_error([&] { File::create(path); }, ExitCode::io, {path, "File exists"});
  expect_error([&] { File::open(missing); }, ExitCode::input, {missing, "No such file"});
  expect_error([&] { File::open_for_writing(missing); }, ExitCode::io, {missing, "No such file"});
  expect_error([&] { read_text(folder.path("")); }, ExitCode::input, {"Is a directory"});
  expect_error([&] { sync_folder(missing); }, ExitCode::io, {missing, "No such file"});
  File full = File::open_for_writing("/dev/full");
  expect_error([&] { full.write(0, "x", 1); }, ExitCode::io,
               {"cannot write /dev/full", "No space left on device"});
}

TEST(File, ReplacesInOneStep) {
  const TemporaryFolder folder;
  const std::string path = folder.path("note");
  replace_text(path, "first");
  replace_text(path, "second");
  EXPECT_EQ(read_text(path), "second");
  EXPECT_EQ(list_folder(folder.path("")), std::vector<std::string>{"note"});
  expect_error([&] { replace_text(folder.path("none/note"), ""); }, ExitCode::io, {"none"});
}

TEST(File, ListsFolders) {
  const TemporaryFolder folder;
  folder.write("b", "");
  folder.write("a/inner", "");
  EXPECT_EQ(list_folder(folder.path("")), (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(list_folder(folder.path("none")).empty());
  expect_error([&] { list_folder(folder.path("b")); }, ExitCode::input, {"b", "Not a directory"});
}

}  // namespace
}  // namespace konclave
