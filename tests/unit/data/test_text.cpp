#include "data/dataset.hpp"
#include "data/files.hpp"
#include "data/text.hpp"
#include "data/tokenizer.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace konclave {
namespace {

std::string string_of(const std::vector<int>& tokens) { return ByteTokenizer().decode(tokens); }

TEST(ByteTokenizer, GivesBackEveryByte) {
  std::string all(256, '\0');
  std::iota(all.begin(), all.end(), '\0');
  const ByteTokenizer tokenizer;

  const std::vector<int> ids = tokenizer.encode(all);

  EXPECT_EQ(ids.front(), 0);
  EXPECT_EQ(ids.back(), 255) << "bytes are not signed";
  EXPECT_EQ(tokenizer.decode(ids), all);
  EXPECT_EQ(tokenizer.vocab_size(), 256);
}

TEST(ByteTokenizer, RefusesIdsOutsideOfItsVocabulary) {
  expect_error([] { string_of({65, 256}); }, ExitCode::input, {"256"});
  expect_error([] { string_of({-1}); }, ExitCode::input, {"-1"});
}

TEST(MakeTokenizer, NamesTheKeyOfAnUnknownOne) {
  EXPECT_EQ(make_tokenizer("bytes")->vocab_size(), 256);
  expect_error([] { make_tokenizer("byte"); }, ExitCode::deck, {"data.tokenizer", "byte"});
}

TEST(ShiftLabels, ScoresEveryPositionButTheLast) {
  const std::vector<int> tokens{7, 8, 9};
  std::vector<int> labels(3);
  shift_labels(tokens, labels);
  EXPECT_EQ(labels, (std::vector<int>{8, 9, kNotScored}));
}

TEST(ShiftLabels, OneTokenHasNothingToScore) {
  std::vector<int> labels(1);
  shift_labels(std::vector<int>{7}, labels);
  EXPECT_EQ(labels, std::vector<int>{kNotScored});
}

TEST(TokenTable, ReadsAnyRow) {
  const TokenTable table({1, 2, 3, 4, 5, 6}, {}, 3);
  std::vector<int> tokens(3), labels(3);

  table.read(1, tokens, labels);

  EXPECT_EQ(table.size(), 2);
  EXPECT_EQ(tokens, (std::vector<int>{4, 5, 6}));
  EXPECT_EQ(labels, (std::vector<int>{5, 6, kNotScored}));
  expect_error([&] { table.read(2, tokens, labels); }, ExitCode::internal, {"sequence 2 of 2"});
  expect_error([&] { table.read(-1, tokens, labels); }, ExitCode::internal, {"-1"});
  expect_error([&] { table.read(0, std::span(tokens).first(2), labels); }, ExitCode::internal,
               {"3 tokens"});
}

TEST(ReadSplitText, HoldsOutTheTailOfEachFile) {
  const TemporaryFolder folder;
  const std::vector<std::string> files{folder.write("a", "abcdefghij"), folder.write("b", "12345")};

  const SplitText text = read_split_text(files, ByteTokenizer(), 0.7);

  EXPECT_EQ(string_of(text.train), "abcdefg123");  // floor(7.0) and floor(3.5)
  EXPECT_EQ(string_of(text.held_out), "hij45");
}

TEST(ReadSplitText, TakesBytesAsTheyAre) {
  const TemporaryFolder folder;
  const std::string bytes("\xff\x00\r\n\xc3", 5);  // no UTF-8, a zero, a line end of another system
  const SplitText text = read_split_text({folder.write("a", bytes)}, ByteTokenizer(), 1);
  EXPECT_EQ(string_of(text.train), bytes);
  EXPECT_TRUE(text.held_out.empty());
}

TEST(ReadSplitText, AnEmptyFileAddsNothing) {
  const TemporaryFolder folder;
  const SplitText text =
      read_split_text({folder.write("a", ""), folder.write("b", "xy")}, ByteTokenizer(), 0.5);
  EXPECT_EQ(string_of(text.train), "x");
  EXPECT_EQ(string_of(text.held_out), "y");
}

TEST(ReadSplitText, NamesWhatItCannotRead) {
  const TemporaryFolder folder;
  folder.write("sub/a", "x");
  const auto read = [](const std::string& path) { read_split_text({path}, ByteTokenizer(), 1); };
  expect_error([&] { read(folder.path("none")); }, ExitCode::input,
               {folder.path("none"), "No such file"});
  expect_error([&] { read(folder.path("sub")); }, ExitCode::input,
               {folder.path("sub"), "directory"});
}

TEST(ReadSplitText, SplitIsAShare) {
  for (const double split : {0.0, -0.5, 1.5}) {
    expect_error([&] { read_split_text({}, ByteTokenizer(), split); }, ExitCode::deck,
                 {"data.split"});
  }
}

TEST(ExpandFiles, SortsTheMatchesOfAGlobAndKeepsTheOrderOfPatterns) {
  const TemporaryFolder folder;
  const std::string b = folder.write("b.txt", ""), a = folder.write("a.txt", ""),
                    upper = folder.write("Z.txt", ""), other = folder.write("other.md", "");
  folder.write("folder.txt/inside", "");
  EXPECT_EQ(expand_files({other, folder.path("*.txt")}),
            (std::vector<std::string>{other, upper, a, b}));
  EXPECT_EQ(expand_files({folder.path("?.txt"), folder.path("[ab].txt")}),
            (std::vector<std::string>{upper, a, b, a, b}));
}

TEST(ExpandFiles, APathThatExistsIsNoGlob) {
  const TemporaryFolder folder;
  const std::string odd = folder.write("a[1]*.txt", "");
  folder.write("a1.txt", "");
  EXPECT_EQ(expand_files({odd}), std::vector<std::string>{odd});
}

TEST(ExpandFiles, NamesWhatIsMissing) {
  const TemporaryFolder folder;
  expect_error([&] { expand_files({folder.path("gone.txt")}); }, ExitCode::input, {"gone.txt"});
  expect_error([&] { expand_files({folder.path("*.txt")}); }, ExitCode::input, {"*.txt", "match"});
}

TEST(UnigramEntropy, OfCountsWorkedOutByHand) {
  EXPECT_EQ(unigram_entropy({}), 0);
  EXPECT_EQ(unigram_entropy(std::vector<int>{5, 5, 5}), 0);
  EXPECT_NEAR(unigram_entropy(std::vector<int>{0, 255}), std::log(2), 1e-15);
  // Shares 1/2, 1/4, 1/4: (1/2) ln 2 + 2 (1/4) ln 4 = (3/2) ln 2.
  EXPECT_NEAR(unigram_entropy(std::vector<int>{7, 1, 7, 3}), 1.5 * std::log(2), 1e-15);
}

}  // namespace
}  // namespace konclave
