#pragma once

#include "deck/schema.hpp"

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace konclave::deck {

/// Reads a tree of values into the fields of a schema and complains about what does not fit.
class Reader {
 public:
  Reader(const Schema& schema, Complaints& complaints);

  /// Keys, types and ranges, then required keys, then the rules between keys.
  void read(const Node& root, DeckUse use);

  /// The origin of a key's value as DeckValue has it.
  std::string origin(const std::string& key) const;

 private:
  void visit(const Node& node, const std::string& key);
  void visit_members(const Node& node, const std::string& key);
  void read_value(const Entry& entry, const Node& node);
  void complain_about_unknown(const Node& node, const std::string& key);
  void check_needs(DeckUse use);
  bool is_needed(const Entry& entry, DeckUse use) const;
  void check_rules(DeckUse use);
  void complain_about_rule(const Rule& rule, const std::string& fault);
  /// Of its header, or of the deck's first line when it has none.
  Place section_place(const std::string& section) const;

  const Schema& schema_;
  Complaints& complaints_;
  std::vector<std::string> known_keys_;
  std::set<std::string> sections_;
  std::map<std::string, Place> given_;           ///< where values of the deck's keys are
  std::map<std::string, Place> section_places_;  ///< "" is the deck as a whole
  std::set<std::string> bad_;  ///< keys already complained about, and those a typo was meant to be
};

/// The known key that an unknown one was meant to be, or "". A right name in the wrong section
/// counts as near, so "model.lr" gives "optimizer.lr".
std::string nearest_key(std::string_view key, const std::vector<std::string>& known);

}  // namespace konclave::deck
