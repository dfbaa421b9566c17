#include "data/text.hpp"

#include "base/error.hpp"
#include "base/file.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace konclave {

SplitText read_split_text(const std::vector<std::string>& files, const Tokenizer& tokenizer,
                          double split) {
  require(split > 0 && split <= 1,
          "data.split = " + std::to_string(split) + " is not above 0 and at most 1",
          ExitCode::deck);
  SplitText text;
  for (const std::string& file : files) {
    const std::vector<int> tokens = tokenizer.encode(read_text(file));
    const auto cut = tokens.begin() + static_cast<std::ptrdiff_t>(
                                          std::floor(split * static_cast<double>(tokens.size())));
    text.train.insert(text.train.end(), tokens.begin(), cut);
    text.held_out.insert(text.held_out.end(), cut, tokens.end());
  }
  return text;
}

double unigram_entropy(std::span<const int> tokens) {
  std::vector<std::int64_t> counts;
  for (const int token : tokens) {
    const auto index = static_cast<std::size_t>(token);
    if (index >= counts.size()) counts.resize(index + 1);
    ++counts[index];
  }
  double entropy = 0;
  for (const std::int64_t count : counts) {
    const double share = static_cast<double>(count) / static_cast<double>(tokens.size());
    if (count > 0) entropy -= share * std::log(share);
  }
  return entropy;
}

}  // namespace konclave
