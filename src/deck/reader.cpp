#include "deck/reader.hpp"

#include "base/text.hpp"
#include "deck/later.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace konclave::deck {
namespace {

/// The first text in a value that names a feature not built; balancing takes lists.
const LaterValue* later_value(const std::string& key, const Node& node) {
  for (const Node& element : elements(node)) {
    const std::string* text = element.as<std::string>();
    if (text == nullptr) continue;
    if (const LaterValue* later = find_later_value(key, *text)) return later;
  }
  return nullptr;
}

std::string first_sentence(const std::string& text) {
  const std::size_t end = text.find(". ");
  return end == std::string::npos ? text : text.substr(0, end + 1);
}

}  // namespace

std::string nearest_key(std::string_view key, const std::vector<std::string>& known) {
  constexpr int kOtherSection = 3;  // no more than three letters, however different its name
  const std::string leaf = leaf_of(key), section = section_of(key);
  const int letters = static_cast<int>(leaf.size());
  const int slips = std::max(1, static_cast<int>(section.size()) / 3);
  std::string found;
  int best = std::numeric_limits<int>::max();
  for (const std::string& candidate : known) {
    const int section_distance =
        std::min(edit_distance(section, section_of(candidate)), kOtherSection);
    const bool same_section = section_distance <= slips && section_distance < kOtherSection;
    // In another section the name has to be nearly right: short names are all near one another.
    const int allowed = same_section ? std::max(1, letters / 3) : letters / 4;
    const std::string name = leaf_of(candidate);
    const bool is_start = same_section && letters >= 3 && name.starts_with(leaf);
    const int distance =
        is_start ? std::min(1, edit_distance(leaf, name)) : edit_distance(leaf, name);
    if (distance <= allowed && distance + section_distance < best) {
      best = distance + section_distance;
      found = candidate;
    }
  }
  return found;
}

Reader::Reader(const Schema& schema, Complaints& complaints)
    : schema_(schema), complaints_(complaints) {
  for (const Schema::Section& section : schema.sections()) {
    for (const Entry& entry : section.entries) known_keys_.push_back(entry.key());
  }
  for (const LaterKey& later : later_keys()) known_keys_.push_back(later.key);
  for (const std::string& key : known_keys_) {
    for (std::string section = section_of(key); !section.empty(); section = section_of(section)) {
      sections_.insert(section);
    }
  }
}

void Reader::read(const Node& root, DeckUse use) {
  section_places_.emplace("", root.place);
  visit_members(root, "");
  if (complaints_.is_incomplete()) return;
  for (const Schema::Section& section : schema_.sections()) {
    for (const Entry& entry : section.entries) {
      if (entry.form().resolve) entry.form().resolve();
    }
  }
  check_needs(use);
  check_rules(use);
}

std::string Reader::origin(const std::string& key) const {
  const auto found = given_.find(key);
  return found == given_.end() ? "default" : found->second.origin();
}

void Reader::visit_members(const Node& node, const std::string& key) {
  for (const Node& member : node.as<Table>()->members) {
    visit(member, key.empty() ? member.key : key + "." + member.key);
  }
}

void Reader::visit(const Node& node, const std::string& key) {
  const bool is_table = node.as<Table>() != nullptr;
  if (const Entry* entry = schema_.find(key)) {
    read_value(*entry, node);
  } else if (const LaterKey* later = find_later_key(key)) {
    const std::string reason = refuse_later_key(*later, toml_text(node));
    if (!reason.empty()) complaints_.add(node.place, reason);
  } else if (is_table && sections_.contains(key)) {
    section_places_.emplace(key, node.key_place);
    visit_members(node, key);
  } else if (sections_.contains(key)) {
    complaints_.add(node.key_place, fmt::format("{} is a section of keys and has no value; "
                                                "\"konclave explain {}\" lists them",
                                                key, key));
    bad_.insert(key);
  } else if (is_table && node.place.source->is_argument) {
    visit_members(node, key);  // an argument names one key: complain about all of it
  } else {
    complain_about_unknown(node, key);
  }
}

void Reader::read_value(const Entry& entry, const Node& node) {
  const std::string& key = entry.key();
  given_[key] = node.place;
  if (const LaterValue* later = later_value(key, node)) {
    complaints_.add(node.place, refuse_later_value(*later, toml_text(node)));
    bad_.insert(key);
    return;
  }
  try {
    entry.form().read(node);
  } catch (const Refusal& refusal) {
    complaints_.add(refusal.place, key + refusal.text);
    bad_.insert(key);
  }
}

void Reader::complain_about_unknown(const Node& node, const std::string& key) {
  const bool is_section = node.as<Table>() != nullptr;
  std::string meant;
  if (is_section) meant = nearest(key, {sections_.begin(), sections_.end()});
  if (meant.empty()) meant = nearest_key(key, known_keys_);
  std::string hint;
  if (!meant.empty()) {
    hint = fmt::format("; did you mean {}?", meant);
    bad_.insert(meant);  // it is not missing too
  } else if (sections_.contains(section_of(key))) {
    hint = fmt::format("; \"konclave explain {}\" lists the keys of that section", section_of(key));
  }
  complaints_.add(node.key_place,
                  fmt::format("unknown {} {}{}", is_section ? "section" : "key", key, hint));
}

bool Reader::is_needed(const Entry& entry, DeckUse use) const {
  switch (entry.need()) {
    case Need::optional:
      return false;
    case Need::always:
      return true;
    case Need::training:
      return use == DeckUse::train;
    case Need::with_section:
      break;
  }
  const std::string section = section_of(entry.key());
  return std::any_of(given_.begin(), given_.end(),
                     [&](const auto& given) { return section_of(given.first) == section; });
}

void Reader::check_needs(DeckUse use) {
  for (const Schema::Section& section : schema_.sections()) {
    for (const Entry& entry : section.entries) {
      const std::string& key = entry.key();
      const bool is_excused = bad_.contains(key) || bad_.contains(section.name);
      if (given_.contains(key) || is_excused || !is_needed(entry, use)) continue;
      complaints_.add(section_place(section.name),
                      fmt::format("{} is missing: {}", key, first_sentence(entry.meaning())));
      bad_.insert(key);
    }
  }
}

Place Reader::section_place(const std::string& section) const {
  const auto found = section_places_.find(section);
  return found != section_places_.end() ? found->second : section_places_.at("");
}

void Reader::check_rules(DeckUse use) {
  for (const Rule& rule : schema_.rules()) {
    const bool is_for_use = use == DeckUse::train || rule.scope == RuleScope::always;
    const bool is_bad = std::any_of(rule.keys.begin(), rule.keys.end(), [&](const auto& key) {
      return bad_.contains(key) || bad_.contains(section_of(key));
    });
    const std::string fault = is_for_use && !is_bad ? rule.remedy() : "";
    if (!fault.empty()) complain_about_rule(rule, fault);
  }
}

void Reader::complain_about_rule(const Rule& rule, const std::string& fault) {
  std::vector<std::string> values;
  std::vector<Note> places;  // of the keys that were given
  for (const std::string& key : rule.keys) {
    const std::string value = fmt::format("{} = {}", key, schema_.find(key)->form().write());
    const auto given = given_.find(key);
    values.push_back(given == given_.end() ? value + " (default)" : value);
    if (given != given_.end()) places.push_back({given->second, value});
  }
  Place first = section_place(section_of(rule.keys.front()));
  if (!places.empty()) {
    first = places.front().place;
    places.erase(places.begin());
  }
  complaints_.add(first, rule.complaint(fault, values), std::move(places));
}

}  // namespace konclave::deck
