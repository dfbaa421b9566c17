#pragma once

#include "comm/communicator.hpp"
#include "deck/deck.hpp"
#include "ops/op_table.hpp"

#include <spdlog/logger.h>

namespace konclave {

/// Trains `steps` steps in the deck's mapping on all ranks and, from the same start, in the
/// simplest one: rank 0 alone, which keeps all that backward needs (no [recompute]) and needs the
/// memory for that. Behind each step losses, gradient norms, and all gradients and weights are
/// compared; the first step that differs by more than rounding is told, with the first tensor on
/// the way of the data, its layer and by how much.
/// Writes no files. Returns done, or ExitCode::differs.
///
/// The error of a tensor is |a - b| / (|b| + 1e-6 of the norm of all gradients or weights), in
/// 2-norms.
ExitCode self_check(const Communicator& world, const Deck& deck, const OpTable& backends,
                    std::int64_t steps, spdlog::logger& log);

}  // namespace konclave
