#pragma once

#include "deck/deck.hpp"
#include "deck/forms.hpp"

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace konclave::deck {

/// When a key must be given.
enum class Need {
  optional,
  with_section,  ///< as soon as another key of its section is given
  training,      ///< for DeckUse::train
  always
};

/// One key of the deck: the only place that knows its name, its field and its meaning.
class Entry {
 public:
  Entry(std::string key, Form form, std::string meaning)
      : key_(std::move(key)), form_(std::move(form)), meaning_(std::move(meaning)) {
    default_text_ = form_.write();
  }

  Entry& unit(std::string text) { return unit_ = std::move(text), *this; }
  Entry& need(Need need) { return need_ = need, *this; }
  Entry& defines_model() { return defines_model_ = true, *this; }

  const std::string& key() const { return key_; }
  const Form& form() const { return form_; }
  const std::string& meaning() const { return meaning_; }
  const std::string& unit() const { return unit_; }
  /// TOML spelling of the field before anything was read.
  const std::string& default_text() const { return default_text_; }
  Need need() const { return need_; }
  bool is_model_defining() const { return defines_model_; }

 private:
  std::string key_;
  Form form_;
  std::string meaning_, unit_, default_text_;
  Need need_ = Need::optional;
  bool defines_model_ = false;
};

/// Where a rule matters.
enum class RuleScope {
  always,
  training,  ///< for DeckUse::train
  mapping    ///< for DeckUse::train, and for the mapping that a model is used under: mapping_fault
};

/// A condition between keys, as a sentence that says what must hold.
struct Rule {
  RuleScope scope;
  std::vector<std::string> keys;
  std::string sentence;
  /// What would do instead, as in "parallel.tp = 1, 2 or 4 would do", or "" when the rule holds.
  std::function<std::string()> remedy;
  /// The remedy names keys and numbers itself and needs neither the sentence nor the values.
  bool is_whole = false;

  /// What to tell the user about a fault that was found; `values` are those of the keys, as in
  /// "parallel.tp = 3".
  std::string complaint(const std::string& found, const std::vector<std::string>& values) const;
};

/// All keys and rules, bound to the fields of one deck, which must outlive it.
class Schema {
 public:
  explicit Schema(Deck& deck);
  Schema(const Schema&) = delete;
  Schema& operator=(const Schema&) = delete;

  /// Starts a section; keys that follow belong to it.
  void section(std::string name, std::string meaning);
  Entry& key(std::string name, Form form, std::string meaning);
  void rule(RuleScope scope, std::vector<std::string> keys, std::string sentence,
            std::function<std::string()> remedy);
  /// One whose remedy is whole.
  void whole_rule(RuleScope scope, std::vector<std::string> keys, std::string sentence,
                  std::function<std::string()> remedy);

  struct Section {
    std::string name, meaning;
    std::vector<Entry> entries;
  };
  const std::vector<Section>& sections() const { return sections_; }
  const std::vector<Rule>& rules() const { return rules_; }
  /// The entry of a full key, or null.
  const Entry* find(std::string_view key) const;

 private:
  std::vector<Section> sections_;
  std::vector<Rule> rules_;
};

/// "moe" of "moe.top_k", "model.rope_scaling" of "model.rope_scaling.type", "" of "lr".
std::string section_of(std::string_view key);
/// "top_k" of "moe.top_k".
std::string leaf_of(std::string_view key);

}  // namespace konclave::deck
