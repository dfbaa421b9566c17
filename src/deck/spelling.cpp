#include "deck/spelling.hpp"

#include <fmt/format.h>

#include <cmath>
#include <type_traits>

namespace konclave::deck {

std::string toml_text(bool value) { return value ? "true" : "false"; }

std::string toml_text(std::int64_t value) { return std::to_string(value); }

std::string toml_text(double value) {
  std::string text = fmt::format("{}", value);  // shortest text that gives the same double
  const bool looks_like_integer = text.find_first_not_of("-0123456789") == std::string::npos;
  return looks_like_integer ? text + ".0" : text;
}

std::string toml_text(const std::string& value) {
  std::string text = "\"";
  for (const char byte : value) {
    switch (byte) {
      case '"':
        text += "\\\"";
        break;
      case '\\':
        text += "\\\\";
        break;
      case '\n':
        text += "\\n";
        break;
      case '\t':
        text += "\\t";
        break;
      case '\r':
        text += "\\r";
        break;
      default:
        if (static_cast<unsigned char>(byte) < 0x20 || byte == 0x7f) {
          text += fmt::format("\\u{:04x}", static_cast<int>(byte));
        } else {
          text += byte;
        }
    }
  }
  return text + "\"";
}

std::string toml_text(const Node& node) {
  return std::visit(
      [](const auto& value) -> std::string {
        using X = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<X, List>) {
          return toml_text(value.elements);
        } else if constexpr (std::is_same_v<X, Table>) {
          return "a table";
        } else if constexpr (std::is_same_v<X, Date>) {
          return "a date";
        } else {
          return toml_text(value);
        }
      },
      node.value);
}

}  // namespace konclave::deck
