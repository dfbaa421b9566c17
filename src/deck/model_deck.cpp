#include "deck/model_deck.hpp"

#include "deck/deck.hpp"
#include "deck/schema.hpp"

namespace konclave {

std::string model_deck(const ModelDefinition& definition, const std::string& origin) {
  Deck result;
  const deck::Schema schema(result);
  result.definition = definition;
  for (const deck::Schema::Section& section : schema.sections()) {
    for (const deck::Entry& entry : section.entries) {
      if (!entry.is_model_defining()) continue;
      result.values.push_back({entry.key(), entry.form().write(), origin, true});
    }
  }
  return effective_deck(result);
}

}  // namespace konclave
