#pragma once

#include "checkpoints/reader.hpp"
#include "comm/communicator.hpp"
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
  std::int64_t nan_steps = 0;  ///< steps whose loss or gradient was no finite number
};

/// How the ranks of a run are used, as far as its bits depend on it. Tensors of a checkpoint don't.
struct Mapping {
  int ranks = 1;
  ParallelConfig parallel;
};

/// Collective. Writes weights, master weights, moments and state as one checkpoint: rank 0 writes,
/// and the parts of other ranks are sent to it, one tensor at a time. Throws AgreedError: numerics
/// when a tensor has a NaN or an infinity, io when writing fails; then the earlier checkpoints are
/// untouched.
void save_run(const Communicator& world, const std::filesystem::path& checkpoints,
              const std::string& deck, const nlohmann::json& provenance, const RunState& state,
              const Mapping& mapping, ModelRunner& runner, Optimizer& optimizer);

/// Loads this rank's part of all that save_run wrote, to the bit. Throws Error(input) naming what
/// is missing.
RunState load_run(const Checkpoint& checkpoint, ModelRunner& runner, Optimizer& optimizer);

/// The checkpoint that a run with this deck goes on from, if any: by run.resume. `report` gets a
/// sentence for each damaged one that is passed over. Throws Error(deck) when keys that define the
/// model differ from the saved ones, Error(resource) when the mapping does; other changes are
/// reported. For one rank to call.
std::optional<Checkpoint> find_resume(const Deck& deck, const Mapping& mapping,
                                      const std::filesystem::path& checkpoints,
                                      const std::function<void(const std::string&)>& report);

}  // namespace konclave
