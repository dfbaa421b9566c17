#pragma once

#include "deck/node.hpp"

#include <concepts>
#include <cstdint>
#include <string>
#include <vector>

namespace konclave::deck {

/// TOML spellings; reading one gives the same value, bit for bit.
std::string toml_text(bool value);
std::string toml_text(std::int64_t value);
std::string toml_text(double value);
std::string toml_text(const std::string& value);
/// "a table" and "a date" for those two: only messages need them.
std::string toml_text(const Node& node);

template <typename X> std::string toml_text(const std::vector<X>& values) {
  std::string text = "[";
  for (const X& value : values) {
    if (text.size() > 1) text += ", ";
    if constexpr (std::integral<X> && !std::same_as<X, bool>) {
      text += toml_text(static_cast<std::int64_t>(value));
    } else {
      text += toml_text(value);
    }
  }
  return text + "]";
}

}  // namespace konclave::deck
