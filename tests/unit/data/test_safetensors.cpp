#include "data/safetensors.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <cstring>

namespace konclave {
namespace {

/// A file with this header and this much data.
std::string file_with(std::string header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::string bytes(sizeof length, '\0');
  std::memcpy(bytes.data(), &length, sizeof length);
  return bytes + header + std::string(data_bytes, 'x');
}

void expect_refused(const std::string& bytes, std::vector<std::string> words) {
  const TemporaryFolder folder;
  const std::string path = folder.write("bad.safetensors", bytes);
  words.emplace_back("bad.safetensors");
  expect_error([&] { SafetensorsFile::open(path); }, ExitCode::input, words);
}

SafetensorsSource source(const std::string& name, const std::string& dtype,
                         std::vector<std::int64_t> shape, const std::string& bytes) {
  return {name, dtype, std::move(shape),
          [bytes](void* host) { std::memcpy(host, bytes.data(), bytes.size()); }};
}

std::string bytes_of(const SafetensorsEntry& entry) {
  return {reinterpret_cast<const char*>(entry.data), entry.bytes};
}

TEST(Safetensors, GivesBackWhatIsWritten) {
  const TemporaryFolder folder;
  const std::string path = folder.path("model.safetensors");
  write_safetensors(path,
                    {source("odd", "I8", {3}, "abc"), source("half", "BF16", {1, 1}, "de"),
                     source("wide", "F64", {2}, "0123456789abcdef"),
                     source("none", "F32", {0, 4}, ""), source("scalar", "F32", {}, "wxyz")},
                    {{"format", "pt"}});
  const SafetensorsFile file = SafetensorsFile::open(path);
  ASSERT_EQ(file.entries().size(), 5U);
  EXPECT_EQ(bytes_of(file.at("odd")), "abc");
  EXPECT_EQ(bytes_of(file.at("half")), "de");
  EXPECT_EQ(bytes_of(file.at("wide")), "0123456789abcdef");
  EXPECT_EQ(bytes_of(file.at("scalar")), "wxyz");
  EXPECT_EQ(file.at("none").bytes, 0U);
  EXPECT_EQ(file.at("half").dtype, "BF16");
  EXPECT_EQ(file.at("half").shape, (std::vector<std::int64_t>{1, 1}));
  EXPECT_EQ(file.at("scalar").elements(), 1);
  EXPECT_EQ(file.find("other"), nullptr);
  expect_error([&] { file.at("other"); }, ExitCode::input, {"model.safetensors", "other"});
  for (const auto& [name, element] :
       std::map<std::string, std::uintptr_t>{{"wide", 8}, {"scalar", 4}, {"half", 2}}) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(file.at(name).data) % element, 0U) << name;
  }
}

TEST(Safetensors, StaysOpenWhenMoved) {
  const TemporaryFolder folder;
  write_safetensors(folder.path("a"), {source("t", "U8", {4}, "data")});
  std::vector<SafetensorsFile> files;
  for (int i = 0; i < 5; ++i) files.push_back(SafetensorsFile::open(folder.path("a")));
  for (const SafetensorsFile& file : files) EXPECT_EQ(bytes_of(file.at("t")), "data");
}

TEST(Safetensors, ReplacesNothing) {
  const TemporaryFolder folder;
  const std::string path = folder.write("there", "before");
  expect_error([&] { write_safetensors(path, {}); }, ExitCode::io, {"there", "File exists"});
}

TEST(Safetensors, RefusesFilesThatAreTooShort) {
  expect_refused("", {"too short"});
  expect_refused("1234567", {"too short"});
  const std::string good =
      file_with(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8);
  expect_refused(good.substr(0, 20), {"truncated"});
  expect_refused(good.substr(0, good.size() - 1), {"tensor t", "truncated"});
}

TEST(Safetensors, RefusesBadHeaders) {
  std::string long_header = file_with("{}", 0);
  const std::uint64_t length = 100'000'001;
  std::memcpy(long_header.data(), &length, sizeof length);
  expect_refused(long_header, {"100 MB"});
  expect_refused(file_with("no JSON", 0), {"JSON"});
  expect_refused(file_with("[1]", 0), {"JSON object"});
}

TEST(Safetensors, RefusesBadEntries) {
  const auto refuse = [](const std::string& entry, std::size_t bytes,
                         std::vector<std::string> words) {
    words.emplace_back("tensor t");
    expect_refused(file_with("{\"t\":" + entry + "}", bytes), words);
  };
  refuse(R"({"dtype":"F32","shape":[2]})", 8, {"data_offsets"});
  refuse(R"({"dtype":5,"shape":[2],"data_offsets":[0,8]})", 8, {});
  refuse(R"({"dtype":"F4","shape":[2],"data_offsets":[0,8]})", 8, {"F4"});
  refuse(R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})", 8, {"extent"});
  refuse(R"({"dtype":"F32","shape":[2.5],"data_offsets":[0,8]})", 8, {"extent"});
  refuse(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})", 8, {"data_offsets"});
  refuse(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4,8]})", 8, {"data_offsets"});
  refuse(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})", 8, {"8 bytes", "need 12"});
  refuse(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]})", 8, {"64 bits"});
  refuse(R"({"dtype":"F32","shape":[2],"data_offsets":[18446744073709551608,0]})", 8, {});
}

TEST(Safetensors, RefusesGapsAndOverlaps) {
  const auto two = [](const std::string& first, const std::string& second, std::size_t bytes) {
    return file_with(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + first +
                         R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + second + "}}",
                     bytes);
  };
  const TemporaryFolder folder;
  EXPECT_NO_THROW(SafetensorsFile::open(folder.write("good", two("[4,8]", "[0,4]", 8))));
  expect_refused(two("[0,4]", "[2,6]", 6), {"tensor b", "overlaps"});
  expect_refused(two("[0,4]", "[5,9]", 9), {"tensor b", "gap"});
  expect_refused(two("[0,4]", "[4,8]", 9), {"behind the last tensor"});
  expect_refused(two("[0,4]", "[0,4]", 4), {"overlaps"});
}

}  // namespace
}  // namespace konclave
