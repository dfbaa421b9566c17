#pragma once

#include "data/tokenizer.hpp"

#include <span>
#include <string>
#include <vector>

namespace konclave {

/// The tokens of texts, those to train on and those held out to validate.
struct SplitText {
  std::vector<int> train, held_out;
};

/// Reads each file once. Of a file of n tokens the first floor(split * n) train and the rest is
/// held out, so that both shares have something of every file; shares follow each other in the
/// order of `files`. 0 < split <= 1. Holds 4 bytes per token, the whole text, on every rank.
SplitText read_split_text(const std::vector<std::string>& files, const Tokenizer& tokenizer,
                          double split);

/// -sum over v of p(v) ln p(v), p(v) the share of token v, in nats per token: the loss of the best
/// model that looks at no context. 0 for no tokens.
double unigram_entropy(std::span<const int> tokens);

}  // namespace konclave
