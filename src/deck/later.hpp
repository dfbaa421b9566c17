#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace konclave::deck {

/// A key that is known but whose feature is not built: accepted at a value that changes nothing.
struct LaterKey {
  std::string key;
  std::vector<std::string> neutral;  ///< TOML spellings; empty: the key must be left out
  std::string feature;               ///< "tensor parallelism"
};
const std::vector<LaterKey>& later_keys();
const LaterKey* find_later_key(std::string_view key);

/// A value of a key of the schema whose feature is not built.
struct LaterValue {
  std::string key, value;  ///< `value` is a glob
  std::string feature, instead;
};
const std::vector<LaterValue>& later_values();
const LaterValue* find_later_value(std::string_view key, std::string_view value);

/// Why `key` cannot have the value spelled `text`, or "" when it may.
std::string refuse_later_key(const LaterKey& later, const std::string& text);
/// The sentence that refuses `text`, a value of that kind.
std::string refuse_later_value(const LaterValue& later, const std::string& text);

}  // namespace konclave::deck
