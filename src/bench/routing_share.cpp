#include "bench/routing_share.hpp"

#include "bench/statistics.hpp"

#include <fmt/format.h>

#include <array>
#include <string_view>

namespace konclave {

namespace {

/// Parts of an MoE layer beside its experts.
constexpr std::array<std::string_view, 4> kRouting = {"router", "plan", "permute", "combine"};

/// "router" of "forward: MoE: router"; "" of what is no part of an MoE layer.
std::string_view part_of_moe(std::string_view name) {
  constexpr std::string_view kWithin = ": MoE: ";
  const std::size_t found = name.find(kWithin);
  return found == std::string_view::npos ? "" : name.substr(found + kWithin.size());
}

}  // namespace

std::vector<Phase> median_phases(const std::vector<std::vector<Phase>>& calls) {
  std::vector<Phase> result;
  if (calls.empty()) return result;
  for (const Phase& wanted : calls.front()) {
    std::vector<double> seconds;
    for (const std::vector<Phase>& call : calls) {
      for (const Phase& phase : call) {
        if (phase.name == wanted.name) seconds.push_back(phase.seconds);
      }
    }
    result.push_back({wanted.name, spread_of(seconds).median});
  }
  return result;
}

RoutingShare routing_share(const std::vector<Phase>& phases) {
  RoutingShare sum;
  for (const Phase& phase : phases) {
    const std::string_view part = part_of_moe(phase.name);
    if (part == "experts") sum.experts += phase.seconds;
    for (const std::string_view routing : kRouting) {
      if (part == routing) sum.routing += phase.seconds;
    }
  }
  return sum;
}

void describe_routing_share(const std::vector<Phase>& phases, BenchReport& report) {
  nlohmann::json all = nlohmann::json::array();
  for (const Phase& phase : phases) {
    all.push_back({{"name", phase.name}, {"seconds", phase.seconds}});
    report.text.push_back(fmt::format("{:<28} {:>9.3f} ms", phase.name, phase.seconds * 1e3));
  }
  const RoutingShare sum = routing_share(phases);
  report.text.push_back(fmt::format(
      "router, plan, permute and combine: {:.3f} ms beside {:.3f} ms of experts, {:.2f}% of both",
      sum.routing * 1e3, sum.experts * 1e3, 100 * sum.share()));
  report.more["phases"] = all;
  report.more["routing_seconds"] = sum.routing;
  report.more["experts_seconds"] = sum.experts;
  report.more["routing_share"] = sum.share();
}

}  // namespace konclave
