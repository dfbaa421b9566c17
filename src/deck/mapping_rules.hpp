#pragma once

#include "deck/schema.hpp"
#include "model/config.hpp"
#include "parallel/config.hpp"

#include <string>

namespace konclave {

/// Why a model cannot be spread like this over any number of ranks, with keys, numbers and what
/// would do, or "": the rules of the mapping, for a model that is only used.
std::string mapping_fault(const ModelDefinition& definition, const ParallelConfig& parallel);

}  // namespace konclave

namespace konclave::deck {

/// The conditions between [parallel] and the model; declared after the keys.
void declare_mapping_rules(Schema& schema, const Deck& deck);

}  // namespace konclave::deck
