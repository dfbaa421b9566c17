#include "run/training.hpp"

#include "run/training_run.hpp"

#include <utility>

namespace konclave {

ExitCode train(const Deck& deck, OpTable backends, const std::vector<std::string>& command_line,
               spdlog::logger& log) {
  TrainingRun run(deck, std::move(backends), command_line, log);
  return run.run();
}

}  // namespace konclave
