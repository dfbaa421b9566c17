#include "deck/deck.hpp"

#include "deck/assemble.hpp"
#include "deck/reader.hpp"
#include "deck/schema.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace konclave {
namespace {

Deck read_source(const std::shared_ptr<const deck::Source>& source,
                 const std::vector<std::string>& overrides, DeckUse use) {
  Deck result;
  const deck::Schema schema(result);
  deck::Complaints complaints;
  const deck::Node root = deck::assemble(source, overrides, complaints);
  deck::Reader reader(schema, complaints);
  reader.read(root, use);
  if (!complaints.empty()) throw DeckError(complaints.text());
  for (const deck::Schema::Section& section : schema.sections()) {
    for (const deck::Entry& entry : section.entries) {
      result.values.push_back({entry.key(), entry.form().write(), reader.origin(entry.key()),
                               entry.is_model_defining()});
    }
  }
  return result;
}

}  // namespace

Deck read_deck(const std::filesystem::path& file, const std::vector<std::string>& overrides,
               DeckUse use) {
  const std::string text = deck::read_text_file(file);
  return read_source(deck::make_source(file.string(), file.parent_path(), text, 0), overrides, use);
}

Deck read_deck_text(std::string_view text, const std::string& name,
                    const std::vector<std::string>& overrides, DeckUse use) {
  return read_source(deck::make_source(name, {}, text, 0), overrides, use);
}

std::string effective_deck(const Deck& deck) {
  std::size_t widest = 0;
  const auto line_of = [](const DeckValue& value) {
    return fmt::format("{} = {}", deck::leaf_of(value.key), value.text);
  };
  constexpr std::size_t kWidestAligned = 48;  // longer ones do not push the comments away
  for (const DeckValue& value : deck.values) {
    const std::size_t width = line_of(value).size();
    if (width <= kWidestAligned) widest = std::max(widest, width);
  }
  std::string text = "# Effective deck: every value, and where it comes from.\n";
  std::string section;
  for (const DeckValue& value : deck.values) {
    if (deck::section_of(value.key) != section) {
      section = deck::section_of(value.key);
      text += fmt::format("\n[{}]\n", section);
    }
    text += fmt::format("{:<{}}  # {}\n", line_of(value), widest, value.origin);
  }
  return text;
}

std::vector<DeckChange> changed_keys(const Deck& before, const Deck& after) {
  std::map<std::string, std::string> old;
  for (const DeckValue& value : before.values) old[value.key] = value.text;
  std::vector<DeckChange> changes;
  for (const DeckValue& value : after.values) {
    const std::string& text = old[value.key];
    if (text != value.text) {
      changes.push_back({value.key, text, value.text, value.defines_model});
    }
  }
  return changes;
}

}  // namespace konclave
