#include "deck/convert.hpp"

#include "base/text.hpp"
#include "deck/spelling.hpp"

#include <fmt/format.h>

#include <cmath>

namespace konclave::deck {
namespace {

/// Whole numbers as such, but no long rows of zeros.
std::string plain(double value) {
  constexpr double kLargestSpelled = 1e9;
  const bool is_whole = std::floor(value) == value && std::abs(value) <= kLargestSpelled;
  return is_whole ? fmt::format("{:.0f}", value) : fmt::format("{:g}", value);
}

}  // namespace

bool Bounds::contains(double value) const {
  return (low_is_out ? value > low : value >= low) && (high_is_out ? value < high : value <= high);
}

std::string Bounds::text() const {
  if (!low_is_out && !high_is_out && std::isfinite(low) && std::isfinite(high)) {
    return plain(low) + " to " + plain(high);
  }
  std::vector<std::string> parts;
  if (std::isfinite(low)) parts.push_back((low_is_out ? "above " : "at least ") + plain(low));
  if (std::isfinite(high)) parts.push_back((high_is_out ? "below " : "at most ") + plain(high));
  return join(parts, ", ");
}

void refuse(const Node& node, const std::string& text) { throw Refusal{node.place, text}; }

void refuse_type(const Node& node, const std::string& wanted) {
  refuse(node, fmt::format(" wants {}, not {}", wanted, toml_text(node)));
}

std::int64_t to_integer(const Node& node, const Bounds& bounds) {
  const std::int64_t* value = node.as<std::int64_t>();
  if (value == nullptr) refuse_type(node, "an integer");
  if (!bounds.contains(static_cast<double>(*value))) {
    refuse(node, fmt::format(" = {} is out of range: {}", *value, bounds.text()));
  }
  return *value;
}

double to_number(const Node& node, const Bounds& bounds) {
  const std::int64_t* integer = node.as<std::int64_t>();
  const double* number = node.as<double>();
  if (integer == nullptr && number == nullptr) refuse_type(node, "a number");
  const double value = integer != nullptr ? static_cast<double>(*integer) : *number;
  if (!std::isfinite(value)) refuse(node, " wants a finite number");
  if (!bounds.contains(value)) {
    refuse(node, fmt::format(" = {} is out of range: {}", toml_text(node), bounds.text()));
  }
  return value;
}

bool to_bool(const Node& node) {
  const bool* value = node.as<bool>();
  if (value == nullptr) refuse_type(node, "true or false");
  return *value;
}

std::string to_text(const Node& node) {
  if (const std::string* value = node.as<std::string>()) return *value;
  const bool is_scalar = node.as<List>() == nullptr && node.as<Table>() == nullptr;
  if (!is_scalar || node.raw.empty()) refuse_type(node, "a string");
  return node.raw;
}

std::string to_choice(const Node& node, const std::vector<std::string>& choices) {
  std::string value = to_text(node);
  for (const std::string& choice : choices) {
    if (value == choice) return value;
  }
  const std::string near = nearest(value, choices);
  refuse(node, fmt::format(" = {} is not one of {}{}", toml_text(value), quoted_list(choices),
                           near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near)));
}

std::vector<Node> elements(const Node& node) {
  const List* list = node.as<List>();
  return list != nullptr ? list->elements : std::vector<Node>{node};
}

std::string quoted_list(const std::vector<std::string>& values) {
  std::vector<std::string> quoted;
  for (const std::string& value : values) quoted.push_back(toml_text(value));
  return join(quoted, ", ");
}

}  // namespace konclave::deck
