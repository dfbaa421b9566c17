#pragma once

#include "comm/communicator.hpp"
#include "deck/deck.hpp"
#include "ops/op_table.hpp"

#include <spdlog/logger.h>

#include <string>
#include <vector>

namespace konclave {

/// Trains as the deck says, on all ranks of `world`, from the newest good checkpoint of the run if
/// there is one. Returns, on all ranks alike, the code to leave with: done, resubmit (a signal or
/// the time limit; a checkpoint is saved) or numerics (more losses or gradients that are no numbers
/// than fault.nan_budget allows). Throws Error otherwise.
ExitCode train(const Communicator& world, const Deck& deck, OpTable backends,
               const std::vector<std::string>& command_line, spdlog::logger& log);

}  // namespace konclave
