#pragma once

#include "ops/op_table.hpp"
#include "parallel/tensor_parallel.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace konclave {

/// Partial results that are made piece by piece (TensorParallel::pieces of each rank) and leave the
/// region inside.
///
/// With overlap each piece sets off as soon as it is made, and gets on behind each product while
/// this object lives: first those of the rank behind this one, and so round the group; a rank's own
/// rows come last, and all that others have for it is added up at the end. Without, all rows are
/// one piece, and at the end comes TensorParallel::leave. Sums are the same in both cases, bit by
/// bit.
class Leaving {
 public:
  /// y = this rank's rows of the sum of all ranks' partial results, which take memory of `arena`,
  /// or y itself on one rank. All objects of a group go their way in the same order on its ranks.
  Leaving(const ExecSpace& exec, Operations& operations, Arena& arena, const TensorParallel& tp,
          const AnyView& y);
  Leaving(const Leaving&) = delete;
  Leaving& operator=(const Leaving&) = delete;

  /// make(rows, partial) for each piece: rows of the region inside as a RowBlock, and where their
  /// results go. Called once.
  template <typename F> void each(F&& make) {
    for (const Piece& piece : pieces_) {
      make(piece.rows, piece.partial);
      if (piece.distance > 0) send(piece);
    }
  }
  /// Overwrites y. Called once.
  void finish();

 private:
  struct Piece {
    RowBlock rows;
    AnyView partial;
    int distance;     ///< of the rank whose rows these are; 0 of the own ones, which are sent to
                      ///< nobody
    AnyView arrival;  ///< of what comes in exchange
  };

  void cut();
  void send(const Piece& piece);
  void poll();

  ExecSpace exec_;
  Arena& arena_;
  const TensorParallel& tp_;
  AnyView y_;
  /// Partial results: with overlap those of the own rows by all ranks, in the order of ranks.
  AnyView partial_;
  std::vector<Piece> pieces_;
  std::vector<Request> requests_;
  std::optional<Operations::Pause> polling_;
};

}  // namespace konclave
