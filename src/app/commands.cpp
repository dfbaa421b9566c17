#include "app/commands.hpp"

#include "checkpoints/inspect.hpp"
#include "deck/check_report.hpp"
#include "deck/deck.hpp"
#include "deck/reference.hpp"
#include "ops/backend_list.hpp"
#include "run/model_source.hpp"
#include "run/training.hpp"

#include <fmt/format.h>

#include <cstdio>

namespace konclave::app {

namespace {

ExitCode run_check(const Arguments& arguments) {
  const Deck deck = read_deck(arguments.deck, arguments.overrides);
  require(arguments.ranks == 1,
          "runs on " + std::to_string(arguments.ranks) +
              " ranks are not available in this version; leave --ranks at 1",
          ExitCode::resource);
  fmt::print("{}", check_report(deck));
  return ExitCode::done;
}

ExitCode run_explain(const Arguments& arguments) {
  if (arguments.markdown) {
    fmt::print("{}", deck_reference());
    return ExitCode::done;
  }
  fmt::print("{}", explain(arguments.pattern));
  return ExitCode::done;
}

ExitCode run_inspect(const Arguments& arguments) {
  const Checkpoint checkpoint = open_checkpoint(arguments.model);
  fmt::print("{}", inspect(checkpoint));
  if (arguments.verify) {
    checkpoint.verify();
    fmt::print("every checksum is right\n");
  }
  return ExitCode::done;
}

ExitCode run_on_one_rank(const Arguments& arguments, spdlog::logger& log) {
  const std::string& command = arguments.command;
  if (command == "train") {
    const Deck deck = read_deck(arguments.deck, arguments.overrides);
    return train(deck, built_backends(), arguments.command_line, log);
  }
  if (command == "check") return run_check(arguments);
  if (command == "explain") return run_explain(arguments);
  if (command == "inspect") return run_inspect(arguments);
  if (command == "eval") return run_eval(arguments, log);
  if (command == "generate") return run_generate(arguments);
  return run_convert(arguments, log);
}

}  // namespace

ExitCode run_command(const Arguments& arguments, const Communicator& world, spdlog::logger& log) {
  const bool alone = world.size() == 1;
  const bool for_people = arguments.command == "check" || arguments.command == "explain";
  if (alone) return run_on_one_rank(arguments, log);
  if (for_people) {
    // Nothing is shared: the others wait for the one that prints.
    const ExitCode code = world.rank() == 0 ? run_on_one_rank(arguments, log) : ExitCode::done;
    world.barrier();
    return code;
  }
  log.error(
      "konclave {}: {} ranks were started, and this version runs on one; start it without "
      "mpirun or srun, or with one rank",
      arguments.command, world.size());
  return ExitCode::resource;
}

}  // namespace konclave::app
