#pragma once

#include "model/group_bytes.hpp"
#include "run/generation.hpp"
#include "run/phases.hpp"
#include "train/trainer.hpp"

#include <nlohmann/json.hpp>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace konclave {

/// What the log of a run says at its start and end, as lines.

std::vector<std::string> describe_model(const ModelDefinition& definition);

/// Which backend runs each operation, how, and why the better ones do not.
std::vector<std::string> describe_backends(const std::vector<BackendChoice>& choices);

/// Peaks in bytes, each of the rank that has most.
struct MemoryPeaks {
  std::array<std::int64_t, kMemoryClasses> classes{};
  std::int64_t account = 0;  ///< of all classes together
  std::int64_t process = 0;  ///< as the operating system counts it; 0: of no concern
};

struct RunSummary {
  std::int64_t steps = 0, steps_now = 0, tokens = 0;
  double seconds = 0, loss = 0;
  double validation_loss = -1;  ///< below 0: none
  double unigram_entropy = 0;   ///< of the held-out text; 0: none
  GroupBytes traffic{};         ///< of a step on the average, all ranks together
  /// Flights and time of all steps and ranks together.
  GroupBytes flown{}, under_compute{};
  CommunicationTime communication;
  MemoryPeaks memory;
  std::vector<Phase> phases;  ///< of the steps that were traced, if any
  int traced_steps = 0;
  double recording_seconds = 0;  ///< spent on the files that say what the steps did
};
std::vector<std::string> describe_summary(const RunSummary& summary);
/// The same as numbers: summary.json of a run's folder.
nlohmann::json summary_json(const RunSummary& summary);

}  // namespace konclave
