#include "parallel/grid.hpp"

#include "base/error.hpp"

#include <algorithm>
#include <limits>

namespace konclave {

Grid::Grid(std::vector<Axis> axes) : axes_(std::move(axes)) {
  for (std::size_t i = 0; i < axes_.size(); ++i) {
    const Axis& axis = axes_[i];
    require(axis.size >= 1, "a grid's axis " + axis.name + " needs a size of at least 1");
    require(index_of(axis.name) == i, "a grid has two axes " + axis.name);
    require(ranks_ <= std::numeric_limits<int>::max() / axis.size, "a grid has too many ranks");
    strides_.push_back(ranks_);
    ranks_ *= axis.size;
  }
}

int Grid::coordinate(int rank, std::string_view axis) const {
  check_rank(rank);
  return coordinate_at(rank, index_of(axis));
}

int Grid::color(int rank, const std::vector<std::string>& along) const {
  check_rank(rank);
  const std::vector<bool> selected = select(along);
  int color = 0, stride = 1;  // a grid of the other axes, in their order
  for (std::size_t i = 0; i < axes_.size(); ++i) {
    if (selected[i]) continue;
    color += coordinate_at(rank, i) * stride;
    stride *= axes_[i].size;
  }
  return color;
}

std::vector<int> Grid::members(int rank, const std::vector<std::string>& along) const {
  check_rank(rank);
  const std::vector<bool> selected = select(along);
  std::vector<int> group{rank};
  for (std::size_t i = 0; i < axes_.size(); ++i) {
    if (selected[i]) group.front() -= coordinate_at(rank, i) * strides_[i];
  }
  // Each axis repeats what the faster ones made, further up: the order stays ascending.
  for (std::size_t i = 0; i < axes_.size(); ++i) {
    if (!selected[i]) continue;
    const std::size_t faster = group.size();
    for (int k = 1; k < axes_[i].size; ++k) {
      for (std::size_t j = 0; j < faster; ++j) group.push_back(group[j] + k * strides_[i]);
    }
  }
  return group;
}

std::size_t Grid::index_of(std::string_view axis) const {
  const auto found = std::find_if(axes_.begin(), axes_.end(),
                                  [&](const Axis& known) { return known.name == axis; });
  require(found != axes_.end(), "a grid has no axis " + std::string(axis));
  return static_cast<std::size_t>(found - axes_.begin());
}

std::vector<bool> Grid::select(const std::vector<std::string>& along) const {
  std::vector<bool> selected(axes_.size());
  for (const std::string& axis : along) selected[index_of(axis)] = true;
  return selected;
}

int Grid::coordinate_at(int rank, std::size_t axis) const {
  return rank / strides_[axis] % axes_[axis].size;
}

void Grid::check_rank(int rank) const {
  if (rank < 0 || rank >= ranks_) {
    fail("rank " + std::to_string(rank) + " is not in a grid of " + std::to_string(ranks_));
  }
}

}  // namespace konclave
