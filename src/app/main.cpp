#include "app/arguments.hpp"
#include "app/commands.hpp"
#include "comm/agreed.hpp"
#include "comm/communicator.hpp"
#include "comm/environment.hpp"
#include "comm/launcher_watch.hpp"
#include "tensor/kokkos.hpp"

#include <fmt/format.h>
#include <spdlog/sinks/null_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

using konclave::AgreedError;
using konclave::Communicator;
using konclave::Error;
using konclave::ExitCode;
using konclave::app::Arguments;
using konclave::app::parse_arguments;
using konclave::app::Parsed;

/// Without the words that Kokkos takes.
std::vector<std::string> own_words(int argc, char** argv) {
  std::vector<std::string> words(argv, argv + argc);
  std::erase_if(words, [](std::string_view word) { return word.starts_with("--kokkos-"); });
  return words;
}

/// A text that was asked for. It comes without MPI and Kokkos, also where these cannot start.
bool is_help(const Parsed& parsed) { return !parsed.run && parsed.code == ExitCode::done; }

/// Says why there is nothing to run, once for all ranks.
int leave(const Parsed& parsed, bool speaks) {
  if (speaks) fmt::print(is_help(parsed) ? stdout : stderr, "{}", parsed.text);
  return static_cast<int>(parsed.code);
}

/// Results that a program can read are alone on stdout.
bool has_results_on_stdout(const Arguments& arguments) {
  return arguments.command == "eval" || arguments.command == "generate" ||
         (arguments.command == "bench" && arguments.json_file == konclave::app::kStandardOutput);
}

/// Rank 0 speaks.
spdlog::logger make_log(const Communicator& world, const Arguments& arguments) {
  spdlog::sink_ptr sink = std::make_shared<spdlog::sinks::null_sink_st>();
  if (world.rank() == 0 && has_results_on_stdout(arguments)) {
    sink = std::make_shared<spdlog::sinks::stderr_sink_st>();
  } else if (world.rank() == 0) {
    sink = std::make_shared<spdlog::sinks::stdout_sink_st>();
  }
  spdlog::logger log("konclave", sink);
  log.set_pattern("%v");
  log.flush_on(spdlog::level::info);
  return log;
}

/// Rank 0 says what went wrong, for all that leave with this error.
ExitCode report(const Arguments& arguments, const Communicator& world, const Error& error) {
  const bool internal = error.exit_code() == ExitCode::internal;
  std::fflush(stdout);
  if (world.rank() == 0) {
    fmt::print(stderr, "konclave {}: {}{}\n", arguments.command, error.what(),
               internal ? " (" + error.where() + ")" : "");
  }
  return error.exit_code();
}

/// With one rank nobody waits in a collective, so an error may unwind and leave quietly.
ExitCode run_alone(const Arguments& arguments, const Communicator& world, spdlog::logger& log) {
  try {
    return run_command(arguments, world, log);
  } catch (const Error& error) {
    return report(arguments, world, error);
  }
}

/// With several ranks only what all of them threw may unwind. Every other error finds no handler
/// and ends the job where it is thrown (comm/environment.hpp).
ExitCode run_together(const Arguments& arguments, const Communicator& world, spdlog::logger& log) {
  try {
    return run_command(arguments, world, log);
  } catch (const AgreedError& error) {
    return report(arguments, world, error);
  }
}

}  // namespace

int main(int argc, char** argv) {
  // First of all: on --help Kokkos would print a text of its own.
  const Parsed wanted = parse_arguments(own_words(argc, argv));
  if (is_help(wanted)) return leave(wanted, konclave::rank_from_launcher().value_or("0") == "0");

  const konclave::MpiEnvironment mpi(argc, argv);
  konclave::install_terminate_handler();
  const Communicator world = Communicator::world();
  if (!wanted.run) return leave(wanted, world.rank() == 0);

  const Kokkos::ScopeGuard kokkos(argc, argv);
  const Parsed parsed = parse_arguments({argv, argv + argc});  // with what Kokkos does not know
  if (!parsed.run) return leave(parsed, world.rank() == 0);
  spdlog::logger log = make_log(world, parsed.arguments);
  const ExitCode code = world.size() == 1 ? run_alone(parsed.arguments, world, log)
                                          : run_together(parsed.arguments, world, log);
  return static_cast<int>(code);
}
