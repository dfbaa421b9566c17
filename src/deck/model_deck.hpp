#pragma once

#include "model/config.hpp"

#include <string>

namespace konclave {

/// Text of a deck that holds a model's definition and nothing else; `origin` is the comment behind
/// each value. Reading it for DeckUse::model gives the definition again.
std::string model_deck(const ModelDefinition& definition, const std::string& origin);

}  // namespace konclave
