#include "data/corpus.hpp"
#include "data/tokens.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"

#include <gtest/gtest.h>

namespace konclave {
namespace {

template <typename Integer> std::string bytes_of(const std::vector<Integer>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(Integer)};
}

/// One tensor for `safetensors`: its name, type, shape as JSON, and data.
struct Tensor {
  std::string name, dtype, shape, data;
};

/// The bytes of a safetensors file, put together by hand.
std::string safetensors(const std::vector<Tensor>& tensors) {
  std::string header = "{", data;
  for (const Tensor& tensor : tensors) {
    header += (header.size() > 1 ? "," : "") + ("\"" + tensor.name) + "\":{\"dtype\":\"" +
              tensor.dtype + "\",\"shape\":" + tensor.shape + ",\"data_offsets\":[" +
              std::to_string(data.size()) + "," + std::to_string(data.size() + tensor.data.size()) +
              "]}";
    data += tensor.data;
  }
  header += "}";
  return bytes_of(std::vector<std::uint64_t>{header.size()}) + header + data;
}

Tensor int64s(const std::string& name, const std::string& shape,
              const std::vector<std::int64_t>& values) {
  return {name, "I64", shape, bytes_of(values)};
}

struct Row {
  std::vector<int> tokens, labels;
};

Row row(const Dataset& dataset, std::int64_t index) {
  Row read{std::vector<int>(static_cast<std::size_t>(dataset.sequence_length())), {}};
  read.labels = read.tokens;
  dataset.read(index, read.tokens, read.labels);
  return read;
}

TEST(ReadTokens, ShiftsTheInputsWhenThereAreNoLabels) {
  const TemporaryFolder folder;
  const std::string file = folder.write(
      "a.safetensors", safetensors({int64s("input_ids", "[2,3]", {1, 2, 3, 4, 5, 0})}));

  const TokenTable table = read_tokens({file}, 3, 6);

  ASSERT_EQ(table.size(), 2);
  EXPECT_EQ(row(table, 0).tokens, (std::vector<int>{1, 2, 3}));
  EXPECT_EQ(row(table, 0).labels, (std::vector<int>{2, 3, kNotScored}));
  EXPECT_EQ(row(table, 1).tokens, (std::vector<int>{4, 5, 0}));
  EXPECT_EQ(row(table, 1).labels, (std::vector<int>{5, 0, kNotScored}));
}

TEST(ReadTokens, TakesLabelsAsTheyAre) {
  const TemporaryFolder folder;
  const std::string file =
      folder.write("a", safetensors({int64s("input_ids", "[1,3]", {1, 2, 3}),
                                     int64s("labels", "[1,3]", {-100, 7, 9})}));
  EXPECT_EQ(row(read_tokens({file}, 3, 10), 0).labels, (std::vector<int>{kNotScored, 7, 9}));
}

TEST(ReadTokens, Takes32BitsAndStringsFilesTogether) {
  const TemporaryFolder folder;
  const std::string narrow = folder.write(
      "narrow", safetensors({{"input_ids", "I32", "[1,2]", bytes_of(std::vector<int>{3, 4})}}));
  const std::string wide = folder.write("wide", safetensors({int64s("input_ids", "[1,2]", {5, 6}),
                                                             int64s("labels", "[1,2]", {-1, 8})}));

  const TokenTable table = read_tokens({narrow, wide}, 2, 10);

  ASSERT_EQ(table.size(), 2);
  EXPECT_EQ(row(table, 0).tokens, (std::vector<int>{3, 4}));
  EXPECT_EQ(row(table, 0).labels, (std::vector<int>{4, kNotScored}));
  EXPECT_EQ(row(table, 1).tokens, (std::vector<int>{5, 6}));
  EXPECT_EQ(row(table, 1).labels, (std::vector<int>{kNotScored, 8}));
}

TEST(ReadTokens, WithoutALengthTheFirstFileDecides) {
  const TemporaryFolder folder;
  const std::string file =
      folder.write("a", safetensors({int64s("input_ids", "[1,4]", {1, 2, 3, 4})}));
  const std::string other = folder.write("b", safetensors({int64s("input_ids", "[1,2]", {1, 2})}));
  EXPECT_EQ(read_tokens({file}, 0, 10).sequence_length(), 4);
  expect_error([&] { read_tokens({file, other}, 0, 10); }, ExitCode::input, {other, "2", "4"});
}

/// Reads a file of these tensors for a model of sequence length 3 and vocabulary 10; the error has
/// to name the file as well.
void expect_refused(const std::vector<Tensor>& tensors, std::vector<std::string> words) {
  const TemporaryFolder folder;
  const std::string file = folder.write("ugly.safetensors", safetensors(tensors));
  words.push_back(file);
  expect_error([&] { read_tokens({file}, 3, 10); }, ExitCode::input, words);
}

TEST(ReadTokens, NamesBothLengthsWhenTheyDiffer) {
  expect_refused({int64s("input_ids", "[1,2]", {1, 2})},
                 {"input_ids", "2 tokens", "3", "model.sequence_length"});
}

TEST(ReadTokens, NamesRowAndColumnOfAForeignId) {
  const std::string shape = "[2,3]";
  expect_refused({int64s("input_ids", shape, {1, 2, 3, 4, 10, 6})},
                 {"input_ids", "row 1", "column 1", "10 is no token", "vocab_size = 10"});
  expect_refused({int64s("input_ids", shape, {1, 2, -1, 4, 5, 6})}, {"row 0", "column 2", "-1"});
  const std::int64_t wraps_to_one = (std::int64_t{1} << 32) + 1;
  expect_refused({int64s("input_ids", shape, {1, 2, 3, wraps_to_one, 5, 6})},
                 {"row 1", "column 0", "4294967297"});
  expect_refused({int64s("input_ids", "[1,3]", {1, 2, 3}), int64s("labels", "[1,3]", {1, 2, 11})},
                 {"tensor labels", "row 0", "column 2", "11 is no token"});
}

TEST(ReadTokens, RefusesOtherTensors) {
  expect_refused({int64s("tokens", "[1,3]", {1, 2, 3})}, {"input_ids"});
  expect_refused({{"input_ids", "F32", "[1,3]", bytes_of(std::vector<float>{1, 2, 3})}},
                 {"input_ids", "F32 (1, 3)", "I64"});
  expect_refused({int64s("input_ids", "[3]", {1, 2, 3})}, {"input_ids", "I64 (3)"});
  expect_refused({int64s("input_ids", "[0,3]", {})}, {"input_ids", "empty"});
  expect_refused({int64s("input_ids", "[1,3]", {1, 2, 3}), int64s("labels", "[3,1]", {1, 2, 3})},
                 {"labels", "(3, 1)", "(1, 3)"});
}

TEST(ReadTokens, NamesAFileThatIsCutShort) {
  const TemporaryFolder folder;
  std::string bytes = safetensors({int64s("input_ids", "[1,3]", {1, 2, 3})});
  bytes.pop_back();
  const std::string file = folder.write("short", bytes);
  expect_error([&] { read_tokens({file}, 3, 10); }, ExitCode::input, {file, "input_ids"});
}

TEST(OpenCorpus, OfTokensTrainsOnAllRowsWhateverTheSplit) {
  const TemporaryFolder folder;
  folder.write("b.safetensors", safetensors({int64s("input_ids", "[1,2]", {5, 6})}));
  folder.write("a.safetensors", safetensors({int64s("input_ids", "[2,2]", {1, 2, 3, 4})}));
  DataConfig config;
  config.kind = "tokens";
  config.files = {folder.path("*.safetensors")};
  config.split = 0.5;

  const Corpus corpus = open_corpus(config, 2, 10);

  ASSERT_EQ(corpus.train->size(), 3);
  EXPECT_EQ(row(*corpus.train, 0).tokens, (std::vector<int>{1, 2})) << "sorted: a comes first";
  EXPECT_EQ(row(*corpus.train, 2).tokens, (std::vector<int>{5, 6}));
  EXPECT_EQ(corpus.validation, nullptr);
  EXPECT_EQ(corpus.unigram_entropy, 0);
}

}  // namespace
}  // namespace konclave
