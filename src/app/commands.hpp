#pragma once

#include "app/arguments.hpp"
#include "comm/communicator.hpp"

#include <spdlog/logger.h>

namespace konclave::app {

/// Runs a parsed command; all ranks get the same code. Text for people goes to `log`, results for
/// programs to stdout.
ExitCode run_command(const Arguments& arguments, const Communicator& world, spdlog::logger& log);

ExitCode run_bench(const Arguments& arguments, const Communicator& world, spdlog::logger& log);
ExitCode run_eval(const Arguments& arguments, const Communicator& world, spdlog::logger& log);
ExitCode run_generate(const Arguments& arguments, const Communicator& world, spdlog::logger& log);
ExitCode run_compare(const Arguments& arguments);
ExitCode run_convert(const Arguments& arguments, spdlog::logger& log);
ExitCode run_upcycle(const Arguments& arguments, spdlog::logger& log);

}  // namespace konclave::app
