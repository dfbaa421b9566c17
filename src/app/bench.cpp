#include "bench/bench.hpp"

#include "app/commands.hpp"
#include "base/file.hpp"
#include "comm/agreed.hpp"
#include "ops/backend_list.hpp"

#include <fmt/format.h>

namespace konclave::app {

ExitCode run_bench(const Arguments& arguments, const Communicator& world, spdlog::logger& log) {
  if (!arguments.machine.empty()) {
    throw AgreedError("--machine is not there yet: what is measured is measured anew",
                      ExitCode::usage);
  }
  const nlohmann::json result =
      bench(world, arguments.bench, built_backends(), [&](const BenchReport& report) {
        for (const std::string& line : describe(report)) log.info("{}", line);
      });
  on_root(world, [&] {
    const std::string text = result.dump(2) + "\n";
    if (arguments.json_file == kStandardOutput) {
      fmt::print("{}", text);
    } else if (!arguments.json_file.empty()) {
      replace_text(arguments.json_file, text);
    }
  });
  return ExitCode::done;
}

}  // namespace konclave::app
