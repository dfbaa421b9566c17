#pragma once

#include <string>
#include <vector>

namespace konclave {

/// What parallel.layout says, written out: the letters of each part of the way (E embedding,
/// t layer, L head with the loss).
struct LayoutText {
  std::vector<std::string> parts;
  std::string fault;  ///< why it cannot be read, as it follows the key's name; parts are then none
};

/// Reads Megatron's notation: "|" parts, x*n repeats a letter or "|", (...)*n repeats a group, and
/// commas say nothing. "Et|(tt|)*2tL" is Et, tt, tt, tL.
LayoutText read_layout(const std::string& text);

}  // namespace konclave
