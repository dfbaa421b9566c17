#include "bench/report.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace konclave {

namespace {

/// Four digits, whatever the size; "" for nothing.
std::string figure(double value) { return value > 0 ? fmt::format("{:.4g}", value) : ""; }

using Row = std::vector<std::string>;

std::vector<std::string> table(const std::vector<Row>& rows) {
  std::vector<std::size_t> widths;
  for (const Row& row : rows) {
    widths.resize(row.size(), 0);
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::vector<std::string> lines;
  for (const Row& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      // Names to the left, figures to the right.
      line += i < 2 ? fmt::format("  {:<{}}", row[i], widths[i])
                    : fmt::format("  {:>{}}", row[i], widths[i]);
    }
    lines.push_back(line);
  }
  return lines;
}

}  // namespace

std::vector<std::string> describe(const BenchReport& report) {
  std::vector<std::string> lines = {report.benchmark + ": " + report.problem};
  std::vector<Row> rows = {
      {"", "backend", "median ms", "least", "most", "GFLOP/s", "GB/s", "of limit"}};
  for (const BenchLine& line : report.lines) {
    const Spread& time = line.seconds;
    rows.push_back({line.name, line.backend, figure(time.median * 1e3), figure(time.least * 1e3),
                    figure(time.most * 1e3), figure(line.flops / time.median / 1e9),
                    figure(line.bytes / time.median / 1e9),
                    fmt::format("{:.1f}%", 100 * line.ratio())});
  }
  for (const std::string& line : table(rows)) lines.push_back(line);
  lines.push_back(fmt::format("  limits: {:.1f} GFLOP/s ({}), {:.1f} GB/s",
                              report.limits.flops_per_second / 1e9, report.limits.product,
                              report.limits.bytes_per_second / 1e9));
  for (const std::string& line : report.text) lines.push_back("  " + line);
  return lines;
}

nlohmann::json json_of(const BenchReport& report) {
  nlohmann::json lines = nlohmann::json::array();
  for (const BenchLine& line : report.lines) {
    lines.push_back({{"name", line.name},
                     {"backend", line.backend},
                     {"seconds", line.seconds.median},
                     {"least_seconds", line.seconds.least},
                     {"most_seconds", line.seconds.most},
                     {"repetitions", line.seconds.count},
                     {"flops", line.flops},
                     {"bytes", line.bytes},
                     {"flops_per_second", line.flops / line.seconds.median},
                     {"bytes_per_second", line.bytes / line.seconds.median},
                     {"limit", line.limit},
                     {"limit_seconds", line.limit_seconds},
                     {"ratio", line.ratio()}});
    if (line.moved_bytes > 0) {
      lines.back()["moved_bytes"] = line.moved_bytes;
      lines.back()["moved_ratio"] = line.moved_bytes / line.bytes;
    }
  }
  nlohmann::json result = {{"benchmark", report.benchmark},
                           {"sizes", report.sizes},
                           {"limits",
                            {{"flops_per_second", report.limits.flops_per_second},
                             {"product", report.limits.product},
                             {"bytes_per_second", report.limits.bytes_per_second}}},
                           {"lines", lines}};
  result.update(report.more);
  return result;
}

}  // namespace konclave
