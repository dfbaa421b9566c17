#include "deck/schema.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "deck/entries.hpp"
#include "deck/mapping_rules.hpp"
#include "deck/rules.hpp"

#include <fmt/format.h>

namespace konclave::deck {

std::string Rule::complaint(const std::string& found,
                            const std::vector<std::string>& values) const {
  return is_whole ? found : fmt::format("{}; here {}; {}", sentence, join(values, ", "), found);
}

Schema::Schema(Deck& deck) {
  declare_entries(*this, deck);
  declare_rules(*this, deck);
  declare_mapping_rules(*this, deck);
}

void Schema::section(std::string name, std::string meaning) {
  sections_.push_back({std::move(name), std::move(meaning), {}});
}

Entry& Schema::key(std::string name, Form form, std::string meaning) {
  Section& section = sections_.back();
  return section.entries.emplace_back(section.name + "." + name, std::move(form),
                                      std::move(meaning));
}

void Schema::rule(RuleScope scope, std::vector<std::string> keys, std::string sentence,
                  std::function<std::string()> remedy) {
  for (const std::string& key : keys) require(find(key) != nullptr, "rule of no key: " + key);
  rules_.push_back({scope, std::move(keys), std::move(sentence), std::move(remedy)});
}

void Schema::whole_rule(RuleScope scope, std::vector<std::string> keys, std::string sentence,
                        std::function<std::string()> remedy) {
  rule(scope, std::move(keys), std::move(sentence), std::move(remedy));
  rules_.back().is_whole = true;
}

const Entry* Schema::find(std::string_view key) const {
  for (const Section& section : sections_) {
    for (const Entry& entry : section.entries) {
      if (entry.key() == key) return &entry;
    }
  }
  return nullptr;
}

std::string section_of(std::string_view key) {
  const std::size_t dot = key.rfind('.');
  return std::string(key.substr(0, dot == std::string_view::npos ? 0 : dot));
}

std::string leaf_of(std::string_view key) {
  const std::size_t dot = key.rfind('.');
  return std::string(key.substr(dot == std::string_view::npos ? 0 : dot + 1));
}

}  // namespace konclave::deck
