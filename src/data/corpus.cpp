#include "data/corpus.hpp"

#include "base/error.hpp"
#include "data/files.hpp"
#include "data/text.hpp"
#include "data/tokenizer.hpp"
#include "data/tokens.hpp"

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace konclave {

namespace {

/// Whole sequences only; throws Error(input) saying `what` is too short when there is none.
void cut_to_sequences(std::vector<int>& tokens, int sequence_length, const std::string& what) {
  const auto length = static_cast<std::size_t>(sequence_length);
  require(tokens.size() >= length,
          what + " " + std::to_string(tokens.size()) +
              " tokens, fewer than one sequence (model.sequence_length = " +
              std::to_string(length) + ")",
          ExitCode::input);
  tokens.resize(tokens.size() / length * length);
}

/// "'a.txt'", "the 12 files 'a.txt' to 'l.txt'".
std::string describe(const std::vector<std::string>& files) {
  if (files.size() == 1) return "'" + files.front() + "'";
  return "the " + std::to_string(files.size()) + " files '" + files.front() + "' to '" +
         files.back() + "'";
}

Corpus open_text(const DataConfig& config, const std::vector<std::string>& files,
                 int sequence_length, int vocab_size) {
  const std::unique_ptr<Tokenizer> tokenizer = make_tokenizer(config.tokenizer);
  require(tokenizer->vocab_size() <= vocab_size,
          "data.tokenizer = \"" + config.tokenizer + "\" has " +
              std::to_string(tokenizer->vocab_size()) +
              " ids, model.vocab_size = " + std::to_string(vocab_size) + " has fewer",
          ExitCode::deck);
  SplitText text = read_split_text(files, *tokenizer, config.split);
  const std::string named = describe(files);
  char split[32];
  std::snprintf(split, sizeof split, "%g", config.split);
  cut_to_sequences(text.train, sequence_length,
                   named + ": data.split = " + split + " leaves for training");
  Corpus corpus;
  corpus.train =
      std::make_unique<TokenTable>(std::move(text.train), std::vector<int>(), sequence_length);
  if (config.split < 1) {
    cut_to_sequences(text.held_out, sequence_length,
                     named + ": data.split = " + split + " holds out");
    corpus.unigram_entropy = unigram_entropy(text.held_out);
    corpus.validation =
        std::make_unique<TokenTable>(std::move(text.held_out), std::vector<int>(), sequence_length);
  }
  return corpus;
}

}  // namespace

Corpus open_corpus(const DataConfig& config, int sequence_length, int vocab_size) {
  require(!config.files.empty(), "data.files names no file", ExitCode::deck);
  const std::vector<std::string> files = expand_files(config.files);
  if (config.kind == "text") return open_text(config, files, sequence_length, vocab_size);
  require(config.kind == "tokens",
          "data.kind = \"" + config.kind + "\" is not known; there are \"text\" and \"tokens\"",
          ExitCode::deck);
  Corpus corpus;
  corpus.train = std::make_unique<TokenTable>(read_tokens(files, sequence_length, vocab_size));
  return corpus;
}

}  // namespace konclave
