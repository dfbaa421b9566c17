#pragma once

#include <string>
#include <vector>

namespace konclave {

/// Deck section [data].
struct DataConfig {
  std::string kind = "text";        ///< "text" or "tokens"
  std::vector<std::string> files;   ///< paths and globs; a relative one starts at the deck's folder
  std::string tokenizer = "bytes";  ///< of kind "text"
  double split = 0.95;              ///< of kind "text": share of each file to train on
  bool shuffle = false;
};

}  // namespace konclave
