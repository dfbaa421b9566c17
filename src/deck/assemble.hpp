#pragma once

#include "deck/node.hpp"
#include "deck/source.hpp"

#include <memory>
#include <string>
#include <vector>

namespace konclave::deck {

/// One tree of values: what `source` includes first, then its own values, then `overrides`. A
/// later value replaces an earlier one of the same key; sections are merged.
Node assemble(const std::shared_ptr<const Source>& source,
              const std::vector<std::string>& overrides, Complaints& complaints);

/// The text of a file, or Error(input) that names it with the reason.
std::string read_text_file(const std::filesystem::path& file);

}  // namespace konclave::deck
