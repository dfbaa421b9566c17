#include "run/training.hpp"

#include "run/training_run.hpp"

#include <utility>

namespace konclave {

ExitCode train(const Communicator& world, const Deck& deck, OpTable backends,
               const std::vector<std::string>& command_line, spdlog::logger& log) {
  TrainingRun run(world, deck, std::move(backends), command_line, log);
  return run.run();
}

}  // namespace konclave
