#include "parallel/rank_grids.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

namespace konclave {
namespace {

using Names = std::vector<std::string>;

constexpr std::array kAxes = {"tp", "cp", "ep", "dp", "pp"};

bool contains(const Names& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Names split(const std::string& order) {
  Names names;
  std::size_t begin = 0;
  for (std::size_t end = order.find('-'); end != order.npos; end = order.find('-', begin)) {
    names.push_back(order.substr(begin, end - begin));
    begin = end + 1;
  }
  names.push_back(order.substr(begin));
  return names;
}

/// Ranks that hold the dense layers once, and those that hold all experts once.
std::int64_t dense_ranks(const ParallelConfig& parallel) {
  return std::int64_t{parallel.tp} * parallel.cp * parallel.pp;
}
std::int64_t expert_ranks(const ParallelConfig& parallel) {
  return std::int64_t{parallel.etp} * parallel.ep * parallel.pp;
}

/// Both grids, whatever the order leaves out being appended.
RankGrids build(const ParallelConfig& parallel, int ranks) {
  const int dp = static_cast<int>(ranks / dense_ranks(parallel));
  const int edp = static_cast<int>(ranks / expert_ranks(parallel));
  Names names = split(parallel.order);
  for (const char* axis : kAxes) {
    if (!contains(names, axis)) names.emplace_back(axis);
  }
  std::vector<Grid::Axis> dense, experts;
  for (const std::string& name : names) {
    if (name == "tp")
      dense.push_back({"tp", parallel.tp}), experts.push_back({"etp", parallel.etp});
    if (name == "cp") dense.push_back({"cp", parallel.cp});
    if (name == "ep") experts.push_back({"ep", parallel.ep});
    if (name == "dp") dense.push_back({"dp", dp}), experts.push_back({"edp", edp});
    if (name == "pp") dense.push_back({"pp", parallel.pp}), experts.push_back({"pp", parallel.pp});
  }
  return {Grid(std::move(dense)), Grid(std::move(experts))};
}

/// The name by which an order means an axis of either grid.
std::string name_in_order(const std::string& axis) {
  return axis == "etp" ? "tp" : axis == "edp" ? "dp" : axis;
}

/// Names that the order leaves out though an axis that they mean is larger than 1.
Names left_out(const ParallelConfig& parallel, const RankGrids& grids) {
  const Names named = split(parallel.order);
  Names missing;
  for (const Grid* grid : {&grids.dense, &grids.experts}) {
    for (const Grid::Axis& axis : grid->axes()) {
      const std::string name = name_in_order(axis.name);
      const bool is_missing = axis.size > 1 && !contains(named, name);
      if (is_missing && !contains(missing, name)) missing.push_back(name);
    }
  }
  return missing;
}

/// "parallel.tp = 2, parallel.ep = 4": the sizes above 1.
Names sizes(const ParallelConfig& parallel) {
  Names names;
  const auto add = [&](const char* key, int size) {
    if (size > 1) names.push_back(fmt::format("parallel.{} = {}", key, size));
  };
  add("tp", parallel.tp);
  add("cp", parallel.cp);
  add("pp", parallel.pp);
  add("ep", parallel.ep);
  add("etp", parallel.etp);
  return names;
}

std::string with_pp_last(const std::string& order) {
  Names names = split(order);
  std::erase(names, "pp");
  return join(names, "-") + "-pp";
}

void check_ranks(const ParallelConfig& parallel, int ranks) {
  require(ranks >= 1, "a run has at least one rank");
  const int unit = smallest_ranks(parallel);
  if (ranks % unit == 0) return;
  const Names names = sizes(parallel);
  const int below = ranks / unit * unit;
  fail(fmt::format("{} {} a number of ranks that is a multiple of {}; this run has {}, and {}{} "
                   "would do",
                   join(names, ", "), names.size() == 1 ? "needs" : "need", unit, ranks,
                   below > 0 ? fmt::format("{} or ", below) : "", std::int64_t{below} + unit),
       ExitCode::resource);
}

}  // namespace

RankGrids make_rank_grids(const ParallelConfig& parallel, int ranks) {
  std::string fault = order_fault(parallel.order);
  if (fault.empty()) {
    check_ranks(parallel, ranks);
    fault = order_fault(parallel, ranks);
  }
  require(fault.empty(), "parallel.order" + fault, ExitCode::deck);
  return build(parallel, ranks);
}

int smallest_ranks(const ParallelConfig& parallel) {
  for (const int size : {parallel.tp, parallel.cp, parallel.pp, parallel.ep, parallel.etp}) {
    require(size >= 1, "a size in [parallel] is at least 1");
  }
  constexpr std::int64_t kMost = std::numeric_limits<int>::max();
  const std::int64_t dense = dense_ranks(parallel), experts = expert_ranks(parallel);
  const bool fits =
      dense <= kMost && experts <= kMost && dense / std::gcd(dense, experts) <= kMost / experts;
  require(fits, join(sizes(parallel), ", ") + " need more ranks than can be counted",
          ExitCode::resource);
  return static_cast<int>(std::lcm(dense, experts));
}

std::string order_fault(const std::string& order) {
  Names seen;
  for (const std::string& name : split(order)) {
    if (std::find(kAxes.begin(), kAxes.end(), name) == kAxes.end()) {
      return fmt::format(
          " = \"{}\": there is no axis \"{}\"; it joins tp, cp, ep, dp and pp by \"-\"", order,
          name);
    }
    if (contains(seen, name))
      return fmt::format(" = \"{}\": {} is named twice; once would do", order, name);
    seen.push_back(name);
  }
  return "";
}

std::string order_fault(const ParallelConfig& parallel, int ranks) {
  std::string fault = order_fault(parallel.order);
  if (!fault.empty()) return fault;
  const std::string here = fmt::format(" = \"{}\"", parallel.order);
  const RankGrids grids = build(parallel, ranks);
  const Names missing = left_out(parallel, grids);
  if (!missing.empty()) {
    return fmt::format("{} leaves out {}, larger than 1 on {} ranks; \"{}\" would do", here,
                       join(missing, ", "), ranks, ParallelConfig().order);
  }
  const int dp = grids.dense.size("dp"), edp = grids.experts.size("edp");
  if (parallel.pp > 1 && !parallel.order.ends_with("pp") && dp != edp) {
    return fmt::format(
        "{}: pp must come last, because dp = {} and edp = {} differ; \"{}\" would do", here, dp,
        edp, with_pp_last(parallel.order));
  }
  if (grids.dense.members(0, {"pp"}) != grids.experts.members(0, {"pp"})) {
    return fmt::format(
        "{}: dense layers and experts would have different pipeline stages; \"{}\" would do", here,
        with_pp_last(parallel.order));
  }
  return "";
}

}  // namespace konclave
