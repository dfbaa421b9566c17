#pragma once

#include "ops/op_table.hpp"
#include "parallel/tensor_parallel.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace konclave {

/// Rows on their way into the region inside, to be worked on piece by piece (TensorParallel::pieces
/// of each rank).
///
/// With overlap all set off when this object is made, and get on behind each product while it
/// lives. A rank's own rows are there already and come first, then those of the rank before it, and
/// so round the group. Without, all rows are one piece, which is brought by TensorParallel::enter
/// when it is asked for. Products of some rows are those of all, so both give the same results.
class Entering {
 public:
  /// The rows of x, which stays as it is until all are there. All objects of a group are made, and
  /// asked for their rows, in the same order on its ranks. Memory for all rows comes from `arena`.
  Entering(const ExecSpace& exec, Operations& operations, Arena& arena, const TensorParallel& tp,
           const AnyIn& x);
  Entering(const Entering&) = delete;
  Entering& operator=(const Entering&) = delete;

  /// f(rows, their values) for each piece, when it is there: rows of the region inside as a
  /// RowBlock. Called once, if at all.
  template <typename F> void each(F&& f) {
    begin();
    while (here_ < pieces_.size()) {
      const RowBlock rows = next();
      f(rows, AnyIn(all_.slice(rows.first, rows.rows)));
    }
  }
  /// All rows, when they are there.
  AnyIn all() {
    begin();
    while (here_ < pieces_.size()) next();
    return all_;
  }

 private:
  void start_pieces();
  /// Without overlap all rows are gathered here.
  void begin();
  /// The next piece, waited for.
  RowBlock next();
  void poll();

  ExecSpace exec_;
  Arena& arena_;
  const TensorParallel& tp_;
  AnyIn x_, all_;
  std::vector<RowBlock> pieces_;   ///< of the rows inside, in the order in which they come
  std::vector<Request> requests_;  ///< of the last pieces
  std::size_t here_ = 0;           ///< pieces that are there
  std::optional<Operations::Pause> polling_;
};

}  // namespace konclave
