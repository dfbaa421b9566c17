#pragma once

#include "deck/schema.hpp"

namespace konclave::deck {

/// The conditions between keys; declared after the keys.
void declare_rules(Schema& schema, const Deck& deck);

}  // namespace konclave::deck
