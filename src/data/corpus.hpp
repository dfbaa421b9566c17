#pragma once

#include "data/config.hpp"
#include "data/dataset.hpp"

#include <memory>

namespace konclave {

/// What a run trains and validates on.
struct Corpus {
  std::unique_ptr<Dataset> train;
  std::unique_ptr<Dataset> validation;  ///< none without held-out data
  /// Of the validation tokens, in nats per token; 0 without. A model that learned no more than how
  /// often each token occurs has this loss.
  double unigram_entropy = 0;
};

/// Opens section [data] of a deck for a model. Kind "text": shares of all files are strung together
/// and cut into sequences, what is left at the end is dropped; `split` < 1 holds out a validation
/// set. Kind "tokens": all rows of all files train, in order; `split` is not used and nothing is
/// held out. Throws Error(input) naming the file and the numbers, Error(deck) naming the keys.
Corpus open_corpus(const DataConfig& config, int sequence_length, int vocab_size);

}  // namespace konclave
