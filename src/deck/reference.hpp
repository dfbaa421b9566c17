#pragma once

#include <string>
#include <string_view>

namespace konclave {

/// What `konclave explain [GLOB]` prints: name, type, range, unit, default and meaning of each key
/// that `glob` matches, by its full name ("moe.*"), its section ("moe") or its own name ("top_k").
/// Throws Error(usage) with the nearest key when none does.
std::string explain(std::string_view glob);

/// The page docs/deck.md.
std::string deck_reference();

}  // namespace konclave
