#pragma once

#include "checkpoints/reader.hpp"
#include "deck/deck.hpp"
#include "train/trainer.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

namespace konclave {

/// Where a training run stands, besides weights and optimizer.
struct RunState {
  std::int64_t step = 0;     ///< updates done
  std::int64_t samples = 0;  ///< sequences consumed: the data position
  std::int64_t tokens = 0;
};

/// Writes weights, master weights, moments and state as a checkpoint. Throws Error(io); then the
/// earlier checkpoints are untouched.
void save_run(const std::filesystem::path& checkpoints, const std::string& deck,
              const nlohmann::json& provenance, const RunState& state, ModelRunner& runner,
              const Optimizer& optimizer);

/// Loads all that save_run wrote, to the bit. Throws Error(input) naming what is missing.
RunState load_run(const Checkpoint& checkpoint, ModelRunner& runner, Optimizer& optimizer);

/// The checkpoint that a run with this deck goes on from, if any: by run.resume. `report` gets a
/// sentence for each damaged one that is passed over. Throws Error(deck) when keys that define the
/// model differ from the saved ones; other changes are reported.
std::optional<Checkpoint> find_resume(const Deck& deck, const std::filesystem::path& checkpoints,
                                      const std::function<void(const std::string&)>& report);

}  // namespace konclave
