#pragma once

#include "deck/schema.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

/// What the files of the rules share; declare_rules (deck/rules.hpp) is made of these parts.
namespace konclave::deck {

/// A rule that holds or not, and what would do instead.
void add_rule(Schema& schema, RuleScope scope, std::vector<std::string> keys, std::string sentence,
              std::function<bool()> holds, std::function<std::string()> remedy);

/// Whether b > 0 divides a.
inline bool is_multiple(std::int64_t a, std::int64_t b) { return b > 0 && a % b == 0; }

void declare_moe_rules(Schema& schema, const MoeConfig& moe);
/// Of everything that is no part of a model.
void declare_training_rules(Schema& schema, const Deck& deck);

}  // namespace konclave::deck
