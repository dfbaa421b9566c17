#pragma once

#include "deck/node.hpp"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace konclave::deck {

/// The numbers that a key takes.
struct Bounds {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_is_out = false, high_is_out = false;

  bool contains(double value) const;
  /// "1 to 64", "at least 1", "above 0, below 1".
  std::string text() const;
};
inline Bounds between(double low, double high) { return {low, high}; }
inline Bounds at_least(double low) { return {.low = low}; }
inline Bounds above(double low) { return {.low = low, .low_is_out = true}; }

/// Thrown by the conversions below: where the value is, and what goes after the key's name, as in
/// " = 99 is out of range: 1 to 64".
struct Refusal {
  Place place;
  std::string text;
};
[[noreturn]] void refuse(const Node& node, const std::string& text);
/// Refuses with " wants an integer, not "many"".
[[noreturn]] void refuse_type(const Node& node, const std::string& wanted);

std::int64_t to_integer(const Node& node, const Bounds& bounds);
/// An integer is taken as well; infinities and NaN are not.
double to_number(const Node& node, const Bounds& bounds);
bool to_bool(const Node& node);
/// On the command line any value is taken by its text: a shell has removed the quotes.
std::string to_text(const Node& node);
std::string to_choice(const Node& node, const std::vector<std::string>& choices);

/// The elements of a list; any other value is a list of itself.
std::vector<Node> elements(const Node& node);

/// "\"a\", \"b\"".
std::string quoted_list(const std::vector<std::string>& values);

}  // namespace konclave::deck
