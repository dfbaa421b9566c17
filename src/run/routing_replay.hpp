#pragma once

#include "comm/communicator.hpp"
#include "deck/deck.hpp"
#include "run/choices_file.hpp"
#include "train/model_runner.hpp"

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace konclave {

/// What moe.replay asks of a training run: writes down the experts of every token, or has them
/// taken from such a file. Tokens go by their number among all that the run trains on, so that what
/// one mapping recorded any other replays. All functions are collective.
class RoutingReplay {
 public:
  /// `folder` is the run's; rank 0 alone needs it. `world` and `deck` have to outlive this.
  RoutingReplay(const Communicator& world, const Deck& deck, MemoryAccount& account,
                const std::filesystem::path& folder);

  /// For a run that goes on behind so many samples. Throws AgreedError: input when a file cannot be
  /// used, deck when it is of another model or too short for this run, io when it cannot be
  /// written.
  void open(std::int64_t samples);
  /// What the next step's routers get, until the step after it. `batches` are this rank's.
  ExpertChoices begin_step(const ExecSpace& exec, const std::vector<HostMicroBatch>& batches);
  /// Brings what they noted to rank 0.
  void end_step(const ExecSpace& exec);
  /// Writes what rank 0 has of it, as is done from time to time anyway.
  void flush();
  /// A sentence for the start of a run.
  std::string describe() const;

 private:
  /// All of a global batch, on rank 0; `parts[r]` is rank r's (pack).
  void add(std::vector<std::uint16_t>& all, const std::vector<std::string>& parts, int layer) const;

  const Communicator& world_;
  const BatchConfig& batch_;
  std::int64_t steps_;
  bool records_;
  std::filesystem::path path_;
  ChoicesShape shape_;
  std::optional<ChoicesFile> file_;  ///< rank 0's, where it records
  std::int64_t samples_ = 0;         ///< in front of this step
  Arena memory_;
  ExpertChoices choices_;
};

}  // namespace konclave
