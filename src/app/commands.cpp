#include "app/commands.hpp"

#include "checkpoints/inspect.hpp"
#include "comm/agreed.hpp"
#include "deck/check_report.hpp"
#include "deck/deck.hpp"
#include "deck/rank_rules.hpp"
#include "deck/reference.hpp"
#include "deck/schedule_report.hpp"
#include "ops/backend_list.hpp"
#include "parallel/pipeline_layout.hpp"
#include "parallel/rank_grids.hpp"
#include "run/hardware.hpp"
#include "run/html_report.hpp"
#include "run/model_source.hpp"
#include "run/self_check.hpp"
#include "run/training.hpp"

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

namespace konclave::app {

namespace {

/// Of this machine, whatever the deck is checked for. As comments: what `check` prints is a deck.
void print_hardware() {
  const std::vector<RankPlace> places{this_place()};
  fmt::print("\n# What a rank has on the machine that checks\n");
  for (const std::string& line : hardware_map(places)) fmt::print("# {}\n", line);
  for (const std::string& text : hardware_warnings(places)) fmt::print("# warning: {}\n", text);
}

void print_schedule(const Deck& deck, int ranks) {
  const PipelineShape shape = make_pipeline_shape(deck, place_ranks(deck, ranks));
  const PipelineLayout layout =
      make_pipeline_layout(deck.parallel, deck.definition.model.num_layers);
  fmt::print("\n{}", schedule_report(shape, layout));
}

ExitCode run_check(const Arguments& arguments) {
  const Deck deck = read_deck(arguments.deck, arguments.overrides);
  const int ranks = arguments.ranks > 0 ? arguments.ranks : smallest_ranks(deck.parallel);
  fmt::print("{}", check_report(deck, ranks));
  if (arguments.schedule) print_schedule(deck, ranks);
  print_hardware();
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

ExitCode run_report(const Arguments& arguments, spdlog::logger& log) {
  const std::filesystem::path run = arguments.source;
  const std::filesystem::path file =
      arguments.target.empty() ? run / kReportFile : std::filesystem::path(arguments.target);
  write_html_report(run, file);
  log.info("report: {}", file.string());
  return ExitCode::done;
}

/// The deck that rank 0 reads, on all ranks.
Deck read_deck_together(const Arguments& arguments, const Communicator& world) {
  std::optional<Deck> deck;
  std::string text;
  on_root(world, [&] {
    deck = read_deck(arguments.deck, arguments.overrides);
    text = effective_deck(*deck);
  });
  text = world.broadcast(text, 0);
  return deck ? *std::move(deck) : read_deck_text(text, arguments.deck);
}

/// Commands that all ranks work on.
using SharedCommand = ExitCode (*)(const Arguments&, const Communicator&, spdlog::logger&);

ExitCode run_train(const Arguments& arguments, const Communicator& world, spdlog::logger& log) {
  const Deck deck = read_deck_together(arguments, world);
  if (arguments.self_check > 0) {
    return self_check(world, deck, built_backends(), arguments.self_check, log);
  }
  return train(world, deck, built_backends(), arguments.command_line, log);
}

const std::map<std::string, SharedCommand, std::less<>> kShared = {
    {"train", run_train}, {"eval", run_eval}, {"generate", run_generate}, {"bench", run_bench}};

ExitCode run_on_root(const Arguments& arguments, spdlog::logger& log) {
  const std::string& command = arguments.command;
  if (command == "check") return run_check(arguments);
  if (command == "explain") return run_explain(arguments);
  if (command == "inspect") return run_inspect(arguments);
  if (command == "compare") return run_compare(arguments);
  if (command == "report") return run_report(arguments, log);
  if (command == "upcycle") return run_upcycle(arguments, log);
  return run_convert(arguments, log);
}

}  // namespace

ExitCode run_command(const Arguments& arguments, const Communicator& world, spdlog::logger& log) {
  const auto shared = kShared.find(arguments.command);
  if (shared != kShared.end()) return shared->second(arguments, world, log);
  // One is enough for the others, and whoever works alone may fail alone.
  std::string code;
  on_root(world, [&] { code = std::to_string(static_cast<int>(run_on_root(arguments, log))); });
  return static_cast<ExitCode>(std::stoi(world.broadcast(code, 0)));
}

}  // namespace konclave::app
