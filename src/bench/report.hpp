#pragma once

#include "bench/limits.hpp"
#include "bench/statistics.hpp"

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace konclave {

/// One thing that was measured. Amounts are those of all ranks together in a call.
struct BenchLine {
  std::string name, backend;
  Spread seconds;  ///< of a call, on the slowest rank
  double flops = 0, bytes = 0;
  double limit_seconds = 0;  ///< what the machine's limits say of the same work
  std::string limit;         ///< which of them
  double moved_bytes = 0;    ///< by the passes that the work is made of; 0: not counted

  /// The share of the limit that was reached: 1 is as fast as the machine could.
  double ratio() const { return limit_seconds / seconds.median; }
};

/// What a benchmark has to say.
struct BenchReport {
  std::string benchmark;
  std::string problem;   ///< what was measured, in words
  nlohmann::json sizes;  ///< the same for programs
  MachineLimits limits;
  std::vector<BenchLine> lines;
  std::vector<std::string> text;                   ///< below the table
  nlohmann::json more = nlohmann::json::object();  ///< the same for programs: fields of the object
};

/// As lines for people.
std::vector<std::string> describe(const BenchReport& report);

/// One object; names as in docs/performance.md.
nlohmann::json json_of(const BenchReport& report);

}  // namespace konclave
