#include "data/dataset.hpp"

#include "base/error.hpp"

#include <algorithm>
#include <string>
#include <utility>

namespace konclave {

void shift_labels(std::span<const int> tokens, std::span<int> labels) {
  require(tokens.size() == labels.size(), "shift_labels: want as many labels as tokens");
  if (tokens.empty()) return;
  std::copy(tokens.begin() + 1, tokens.end(), labels.begin());
  labels.back() = kNotScored;
}

TokenTable::TokenTable(std::vector<int> tokens, std::vector<int> labels, int sequence_length)
    : tokens_(std::move(tokens)), labels_(std::move(labels)), sequence_length_(sequence_length) {
  require(sequence_length_ > 0 && tokens_.size() % static_cast<std::size_t>(sequence_length_) == 0,
          "a table of tokens wants whole sequences");
  require(labels_.empty() || labels_.size() == tokens_.size(),
          "a table of tokens wants as many labels as tokens, or none");
}

void TokenTable::read(std::int64_t index, std::span<int> tokens, std::span<int> labels) const {
  const auto length = static_cast<std::size_t>(sequence_length_);
  require(index >= 0 && index < size(),
          "sequence " + std::to_string(index) + " of " + std::to_string(size()));
  require(tokens.size() == length && labels.size() == length,
          "reading a sequence of " + std::to_string(length) + " tokens into other sizes");
  const std::size_t begin = static_cast<std::size_t>(index) * length;
  std::copy_n(tokens_.begin() + static_cast<std::ptrdiff_t>(begin), length, tokens.begin());
  if (labels_.empty()) {
    shift_labels(tokens, labels);
  } else {
    std::copy_n(labels_.begin() + static_cast<std::ptrdiff_t>(begin), length, labels.begin());
  }
}

}  // namespace konclave
