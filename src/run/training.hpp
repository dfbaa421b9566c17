#pragma once

#include "deck/deck.hpp"
#include "ops/op_table.hpp"

#include <spdlog/logger.h>

#include <string>
#include <vector>

namespace konclave {

/// Trains as the deck says, from the newest good checkpoint of the run if there is one. Returns the
/// code to leave with: done, resubmit (a signal or the time limit; a checkpoint is saved) or
/// numerics (a loss or gradient that is no number). Throws Error otherwise.
ExitCode train(const Deck& deck, OpTable backends, const std::vector<std::string>& command_line,
               spdlog::logger& log);

}  // namespace konclave
