#pragma once

#include "deck/node.hpp"
#include "deck/source.hpp"

#include <memory>
#include <string>

namespace konclave::deck {

/// The table that a deck's text spells. Syntax errors and repeated keys are added to `complaints`;
/// after a syntax error the table is empty.
Node parse_toml(const std::shared_ptr<const Source>& source, Complaints& complaints);

/// The table that one argument "section.key=value" spells. A value that is no TOML counts as a
/// string, so that names and paths need no second pair of quotes.
Node parse_argument(const std::string& argument, int order, Complaints& complaints);

}  // namespace konclave::deck
