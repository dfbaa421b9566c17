#include "parallel/leaving.hpp"

#include "parallel/collectives.hpp"

namespace konclave {

Leaving::Leaving(const ExecSpace& exec, Operations& operations, Arena& arena,
                 const TensorParallel& tp, const AnyView& y)
    : exec_(exec), arena_(arena), tp_(tp), y_(y) {
  if (!tp.overlaps()) {
    partial_ = tp.partial(arena, y);
    pieces_.push_back({{0, partial_.extent(0)}, partial_, 0, {}});
    return;
  }
  cut();
  polling_.emplace(operations, [this](const ExecSpace&) { poll(); });
}

void Leaving::cut() {
  const int ranks = tp_.ranks(), rank = tp_.rank();
  const std::int64_t rows = y_.extent(0);
  partial_ = arena_.make(y_.type(), ranks * rows, y_.extent(1));
  const AnyView of_others = arena_.make(y_.type(), (ranks - 1) * rows, y_.extent(1));
  const std::vector<RowBlock> pieces = tp_.pieces(rows);
  for (int step = 1; step <= ranks; ++step) {
    const int to = (rank + step) % ranks, from = (rank + ranks - step) % ranks;
    for (const RowBlock& piece : pieces) {
      const auto part_of = [&](const AnyView& view, int rows_before) {
        return view.slice(rows_before * rows + piece.first, piece.rows);
      };
      const RowBlock inside{to * rows + piece.first, piece.rows};
      if (to == rank) {
        pieces_.push_back({inside, part_of(partial_, rank), 0, {}});
      } else {
        pieces_.push_back({inside, part_of(of_others, step - 1), step, part_of(partial_, from)});
      }
    }
  }
}

void Leaving::send(const Piece& piece) {
  requests_.push_back(
      start_shift(exec_, tp_.group(), piece.distance, piece.partial, piece.arrival));
}

void Leaving::poll() {
  for (Request& request : requests_) {
    if (!request.poll()) return;
  }
}

void Leaving::finish() {
  if (!tp_.overlaps()) {
    tp_.leave(exec_, arena_, partial_, y_);
    return;
  }
  polling_.reset();
  for (Request& request : requests_) request.wait(exec_);
  const ArenaScope scope(arena_);
  sum_in_order(exec_, arena_, partial_.reshape(tp_.ranks(), y_.size()), y_);
}

}  // namespace konclave
