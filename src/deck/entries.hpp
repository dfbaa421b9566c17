#pragma once

#include "deck/schema.hpp"

namespace konclave::deck {

/// Binds every key to its field, in the order of the reference page.
void declare_entries(Schema& schema, Deck& deck);

}  // namespace konclave::deck
