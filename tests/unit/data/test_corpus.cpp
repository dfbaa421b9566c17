#include "data/corpus.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace konclave {
namespace {

std::string sequence(const Dataset& dataset, std::int64_t index) {
  std::vector<int> tokens(static_cast<std::size_t>(dataset.sequence_length())), labels = tokens;
  dataset.read(index, tokens, labels);
  return {tokens.begin(), tokens.end()};
}

DataConfig text_of(const std::vector<std::string>& files, double split) {
  DataConfig config;
  config.files = files;
  config.split = split;
  return config;
}

TEST(OpenCorpus, StringsFilesTogetherAndCutsWholeSequences) {
  const TemporaryFolder folder;
  folder.write("a", "abcdefghij");
  folder.write("b", "0123456789");

  const Corpus corpus = open_corpus(text_of({folder.path("?")}, 0.7), 4, 256);

  // 14 tokens train: the third sequence begins in one file, two tokens are left over.
  ASSERT_EQ(corpus.train->size(), 3);
  EXPECT_EQ(sequence(*corpus.train, 0), "abcd");
  EXPECT_EQ(sequence(*corpus.train, 1), "efg0");
  EXPECT_EQ(sequence(*corpus.train, 2), "1234");
  ASSERT_NE(corpus.validation, nullptr);
  ASSERT_EQ(corpus.validation->size(), 1);
  EXPECT_EQ(sequence(*corpus.validation, 0), "hij7");
  EXPECT_NEAR(corpus.unigram_entropy, std::log(4), 1e-14)
      << "of the sequences, not of what is left";
}

TEST(OpenCorpus, TheLastPositionOfASequenceIsNotScored) {
  const TemporaryFolder folder;
  const Corpus corpus = open_corpus(text_of({folder.write("a", "abcdef")}, 1), 3, 256);
  std::vector<int> tokens(3), labels(3);
  corpus.train->read(0, tokens, labels);
  EXPECT_EQ(labels, (std::vector<int>{'b', 'c', kNotScored}));
}

TEST(OpenCorpus, WithAllToTrainOnThereIsNoValidation) {
  const TemporaryFolder folder;
  const Corpus corpus = open_corpus(text_of({folder.write("a", "abcd")}, 1), 4, 256);
  EXPECT_EQ(corpus.train->size(), 1);
  EXPECT_EQ(corpus.validation, nullptr);
  EXPECT_EQ(corpus.unigram_entropy, 0);
}

TEST(OpenCorpus, TooLittleTextIsAnErrorWithNumbers) {
  const TemporaryFolder folder;
  const std::string file = folder.write("small.txt", "abcdefghij");
  const auto open = [&](double split, int length) {
    open_corpus(text_of({file}, split), length, 256);
  };
  expect_error([&] { open(1, 11); }, ExitCode::input,
               {"small.txt", "10 tokens", "model.sequence_length = 11"});
  expect_error([&] { open(0.9, 9); }, ExitCode::input,
               {"small.txt", "data.split = 0.9", "holds out 1 token", "sequence_length = 9"});
}

TEST(OpenCorpus, RefusesWhatTheDeckCannotMean) {
  const TemporaryFolder folder;
  DataConfig config = text_of({folder.write("a", "abcd")}, 1);
  expect_error([&] { open_corpus(config, 4, 255); }, ExitCode::deck,
               {"data.tokenizer", "256", "model.vocab_size = 255"});
  config.kind = "parquet";
  expect_error([&] { open_corpus(config, 4, 256); }, ExitCode::deck, {"data.kind", "parquet"});
  expect_error([] { open_corpus(DataConfig(), 4, 256); }, ExitCode::deck, {"data.files"});
}

TEST(OpenCorpus, NamesAMissingFile) {
  const TemporaryFolder folder;
  const std::string there = folder.write("a", "abcd");
  expect_error(
      [&] {
        open_corpus(text_of({there, folder.path("b")}, 1), 4, 256);
      },
      ExitCode::input, {folder.path("b")});
}

}  // namespace
}  // namespace konclave
