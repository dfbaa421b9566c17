#pragma once

#include "base/trace.hpp"
#include "ops/op_table.hpp"
#include "tensor/arena.hpp"

#include <cstdint>
#include <functional>

namespace konclave {

/// What a layer needs to run, whatever it is. Passed down, never stored.
struct Context {
  ExecSpace exec;
  Operations& operations;
  Arena& activations;      ///< what backward needs: lives as long as the micro-batch
  Arena& scratch;          ///< temporaries: a layer frees what it took
  Trace* trace = nullptr;  ///< where the time of layers is drawn, if anywhere
  /// Told the places of a chunk (ModelChunk::visit_places), if anybody is: each before its forward
  /// and behind its backward.
  const std::function<void(int place)>* passing = nullptr;

  void pass(int place) const {
    if (passing != nullptr) (*passing)(place);
  }
};

/// Sequences of which the ranks of cp hold parts, as they are together. With R ranks of T rows
/// there are R T rows, in two orders: that of ranks (as they arrive, those of rank 0 first) and
/// that of sequences and their positions.
struct WholeSequences {
  std::int64_t longest = 0;         ///< rows of the longest sequence
  View1<const int> offsets;         ///< (count + 1), in the order of sequences
  View1<const int> positions;       ///< (R T), in the order of sequences
  View1<const int> rank_positions;  ///< (R T), in the order of ranks
  /// Between the orders: row in the order of ranks of one in that of sequences, and the inverse.
  View1<const int> arrival_of, place_of;
};

/// The sequences of one micro-batch as rows: sequence i has rows offsets(i) .. offsets(i+1)-1, and
/// positions(t), ascending in a sequence, is the place of row t in its whole sequence. Layers go by
/// these, not by row numbers. With context parallelism a rank has a part of every sequence.
struct Sequences {
  int count = 0;
  std::int64_t tokens = 0;     ///< rows in all
  std::int64_t longest = 0;    ///< rows of the longest sequence
  View1<const int> offsets;    ///< (count + 1)
  View1<const int> positions;  ///< (T)
  WholeSequences whole;        ///< with more than one rank of cp
};

}  // namespace konclave
