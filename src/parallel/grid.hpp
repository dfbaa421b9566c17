#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace konclave {

/// Names the axes that factor a set of ranks; the first axis varies fastest:
///   rank = c0 + size0 * (c1 + size1 * (c2 + ...))
/// No MPI inside. Names must differ and sizes be at least 1. A name that is no axis, and a rank
/// outside 0 to ranks() - 1, throw Error(internal).
class Grid {
 public:
  struct Axis {
    std::string name;
    int size = 1;
  };

  explicit Grid(std::vector<Axis> axes);

  const std::vector<Axis>& axes() const { return axes_; }
  /// The product of all sizes.
  int ranks() const { return ranks_; }
  int size(std::string_view axis) const { return axes_[index_of(axis)].size; }

  int coordinate(int rank, std::string_view axis) const;

  /// Two ranks get the same colour exactly when they differ only along `along`. Colours count from
  /// 0 without gaps, in the order of the groups' lowest ranks.
  int color(int rank, const std::vector<std::string>& along) const;

  /// The ranks that differ from `rank` only along `along`, itself among them, ascending. Takes time
  /// in proportion to their number, not to the world's.
  std::vector<int> members(int rank, const std::vector<std::string>& along) const;

 private:
  std::size_t index_of(std::string_view axis) const;
  /// For each axis whether `along` names it.
  std::vector<bool> select(const std::vector<std::string>& along) const;
  int coordinate_at(int rank, std::size_t axis) const;
  void check_rank(int rank) const;

  std::vector<Axis> axes_;
  std::vector<int> strides_;  ///< ranks from one coordinate of the axis to the next
  int ranks_ = 1;
};

}  // namespace konclave
