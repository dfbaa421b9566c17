#include "deck/rank_map.hpp"

#include <fmt/format.h>

#include <vector>

namespace konclave {
namespace {

constexpr int kMostShown = 32;

struct Column {
  const Grid* grid;
  const char* axis;
};

std::vector<Column> columns_of(const RankGrids& grids) {
  std::vector<Column> columns{
      {&grids.dense, "dp"}, {&grids.experts, "ep"}, {&grids.experts, "edp"}};
  const auto add = [&](const Grid& grid, const char* axis) {
    if (grid.size(axis) > 1) columns.push_back({&grid, axis});
  };
  add(grids.dense, "tp");
  add(grids.dense, "cp");
  add(grids.dense, "pp");
  add(grids.experts, "etp");
  return columns;
}

std::string row(const std::vector<Column>& columns, int rank) {
  std::string text = fmt::format("#   {:>6}", rank);
  for (const auto& [grid, axis] : columns) {
    text += fmt::format("{:>6}", grid->coordinate(rank, axis));
  }
  return text + "\n";
}

}  // namespace

std::string rank_map(const RankGrids& grids) {
  const std::vector<Column> columns = columns_of(grids);
  std::string text = fmt::format("#   {:>6}", "rank");
  for (const Column& column : columns) text += fmt::format("{:>6}", column.axis);
  text += "\n";

  const int ranks = grids.ranks();
  const bool is_short = ranks <= kMostShown;
  const int top = is_short ? ranks : kMostShown / 2;
  const int bottom = is_short ? ranks : ranks - kMostShown / 2;
  for (int rank = 0; rank < top; ++rank) text += row(columns, rank);
  if (!is_short) text += fmt::format("#   {:>6}  {} more\n", "...", bottom - top);
  for (int rank = bottom; rank < ranks; ++rank) text += row(columns, rank);
  return text;
}

}  // namespace konclave
