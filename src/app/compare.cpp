#include "run/compare.hpp"

#include "app/commands.hpp"
#include "run/compare_json.hpp"
#include "run/compare_report.hpp"

#include <fmt/format.h>

namespace konclave::app {

ExitCode run_compare(const Arguments& arguments) {
  const Comparison comparison =
      compare_runs(arguments.source, arguments.target, arguments.tolerance);
  if (arguments.json) {
    fmt::print("{}\n", comparison_json(comparison).dump());
  } else {
    fmt::print("{}", describe_comparison(comparison));
  }
  return comparison.within() ? ExitCode::done : ExitCode::differs;
}

}  // namespace konclave::app
