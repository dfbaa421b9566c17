#pragma once

#include "deck/schema.hpp"

namespace konclave::deck {

/// Whether a model with these experts has a layer without.
bool has_dense_layer(const MoeConfig& moe);

/// The conditions between keys other than those of the mapping; declared after the keys.
void declare_rules(Schema& schema, const Deck& deck);

}  // namespace konclave::deck
