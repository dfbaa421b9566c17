// Groups of ranks of megatron-core, and the mappings that it refuses (make_megatron_ranks.py).

#include "parallel/rank_grids.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace konclave {
namespace {

using Json = nlohmann::json;
using Names = std::vector<std::string>;

Json mappings(const char* kind) {
  std::ifstream file(std::filesystem::path(KONCLAVE_SOURCE_DIR) /
                     "tests/oracle/data/megatron/ranks.json");
  return Json::parse(file).at(kind);
}

ParallelConfig config_of(const Json& mapping) {
  ParallelConfig parallel;
  parallel.tp = mapping.at("tp");
  parallel.cp = mapping.at("cp");
  parallel.pp = mapping.at("pp");
  parallel.ep = mapping.at("ep");
  parallel.etp = mapping.at("etp");
  parallel.order = mapping.at("order");
  return parallel;
}

/// "tp-cp" taken apart.
Names axes_of(const std::string& joined) {
  Names axes;
  std::istringstream stream(joined);
  for (std::string axis; std::getline(stream, axis, '-');) axes.push_back(axis);
  return axes;
}

/// All groups along `along`, in the order of their colours.
std::vector<std::vector<int>> groups(const Grid& grid, const Names& along) {
  std::vector<std::vector<int>> all;
  for (int rank = 0; rank < grid.ranks(); ++rank) {
    const auto color = static_cast<std::size_t>(grid.color(rank, along));
    if (all.size() <= color) all.resize(color + 1);
    all[color].push_back(rank);
  }
  return all;
}

void expect_groups(const Grid& grid, const Json& expected) {
  for (const auto& [along, all] : expected.items()) {
    SCOPED_TRACE(along);
    EXPECT_EQ(groups(grid, axes_of(along)), all.get<std::vector<std::vector<int>>>());
  }
}

TEST(MegatronRanks, GroupsAreTheSame) {
  for (const Json& mapping : mappings("accepted")) {
    SCOPED_TRACE(mapping.at("ranks").dump() + " ranks, " + mapping.at("order").dump());
    const RankGrids grids = make_rank_grids(config_of(mapping), mapping.at("ranks"));
    expect_groups(grids.dense, mapping.at("dense"));
    expect_groups(grids.experts, mapping.at("experts"));
  }
}

TEST(MegatronRanks, WhatItRefusesIsRefused) {
  for (const Json& mapping : mappings("rejected")) {
    SCOPED_TRACE(mapping.dump());
    const bool is_order = mapping.at("why") == "order";
    expect_error([&] { make_rank_grids(config_of(mapping), mapping.at("ranks")); },
                 is_order ? ExitCode::deck : ExitCode::resource,
                 {is_order ? "parallel.order = " : "a number of ranks that is a multiple of"});
  }
}

}  // namespace
}  // namespace konclave
