#pragma once

#include "deck/source.hpp"

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace konclave::deck {

struct Node;
struct List {
  std::vector<Node> elements;
};
struct Table {
  std::vector<Node> members;  ///< in the order of their keys
};
/// A TOML date or time: nothing in a deck takes one, but it must be told from other values.
struct Date {};

/// A value of a deck as written, and where.
struct Node {
  std::variant<bool, std::int64_t, double, std::string, Date, List, Table> value;
  Place place;
  std::string key;       ///< of a table's member: its name there, "top_k"
  Place key_place = {};  ///< of a table's member
  std::string raw = {};  ///< from the command line: the text after '=', before it was taken as TOML

  template <typename X> const X* as() const { return std::get_if<X>(&value); }
};

inline Node* find_member(Table& table, const std::string& key) {
  for (Node& member : table.members) {
    if (member.key == key) return &member;
  }
  return nullptr;
}

}  // namespace konclave::deck
