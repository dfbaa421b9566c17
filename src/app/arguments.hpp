#pragma once

#include "base/error.hpp"
#include "bench/settings.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace konclave::app {

/// Of --json: stdout instead of a file.
inline constexpr const char* kStandardOutput = "-";

/// The command line, taken apart. Which fields count depends on the command.
struct Arguments {
  std::string command;
  std::vector<std::string> command_line;  ///< as given
  std::string deck, model, source, target;
  std::vector<std::string> overrides;  ///< "section.key=value"
  std::string pattern = "*";           ///< explain
  bool markdown = false;               ///< explain: as the page docs/deck.md
  std::string tokens, logits;          ///< eval
  std::string prompt;                  ///< generate
  int max_tokens = 200;
  double temperature = 1;
  std::uint64_t seed = 1;
  int ranks = 0;                    ///< check; 0: the fewest that the deck can run on
  std::int64_t self_check = 0;      ///< train: steps to compare; 0 trains
  bool schedule = false;            ///< check: with the schedule of the pipeline
  int sequence_length = 0;          ///< convert from-hf
  std::string scaling = "exact";    ///< upcycle
  bool verify = false;              ///< inspect
  std::optional<double> tolerance;  ///< compare: instead of the promised figures
  bool json = false;                ///< compare
  BenchSettings bench;
  std::string json_file, machine;  ///< bench
};

/// What became of the command line: a command to run, or a text to print and a code to leave with.
struct Parsed {
  Arguments arguments;
  bool run = false;
  std::string text;
  ExitCode code = ExitCode::done;
};
/// The words begin with the program's name.
Parsed parse_arguments(const std::vector<std::string>& words);

}  // namespace konclave::app
