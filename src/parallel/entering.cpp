#include "parallel/entering.hpp"

#include "base/fault.hpp"
#include "parallel/collectives.hpp"

#include <algorithm>

namespace konclave {

Entering::Entering(const ExecSpace& exec, Operations& operations, Arena& arena,
                   const TensorParallel& tp, const AnyIn& x)
    : exec_(exec), arena_(arena), tp_(tp), x_(x) {
  if (!tp.overlaps()) return;
  start_pieces();
  polling_.emplace(operations, [this](const ExecSpace&) { poll(); });
}

void Entering::start_pieces() {
  const std::int64_t rows = x_.extent(0);
  const AnyView all = arena_.make(x_.type(), tp_.rows_inside(rows), x_.extent(1));
  all_ = all;
  const std::vector<RowBlock> pieces = tp_.pieces(rows);
  for (int distance = 0; distance < tp_.ranks(); ++distance) {
    const int from = (tp_.rank() + tp_.ranks() - distance) % tp_.ranks();
    const std::int64_t first = (fault("overlap_tp.order_of_arrival") ? distance : from) * rows;
    for (const RowBlock& piece : pieces) {
      pieces_.push_back({first + piece.first, piece.rows});
      const AnyIn own = x_.slice(piece.first, piece.rows);
      const AnyView place = all.slice(pieces_.back().first, piece.rows);
      if (distance == 0) {
        copy_blocks(exec_, own, {{0, piece.rows}}, place, {{0, piece.rows}}, "own rows");
      } else {
        requests_.push_back(start_shift(exec_, tp_.group(), distance, own, place));
      }
    }
  }
}

void Entering::begin() {
  if (!pieces_.empty()) return;
  all_ = tp_.enter(exec_, arena_, x_);
  pieces_.push_back({0, all_.extent(0)});
}

RowBlock Entering::next() {
  const std::size_t at_once = pieces_.size() - requests_.size();
  if (here_ >= at_once) requests_[here_ - at_once].wait(exec_);
  return pieces_[here_++];
}

void Entering::poll() {
  const std::size_t at_once = pieces_.size() - requests_.size();
  for (std::size_t i = std::max(here_, at_once); i < pieces_.size(); ++i) {
    if (!requests_[i - at_once].poll()) return;
  }
}

}  // namespace konclave
