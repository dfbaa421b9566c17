#pragma once

#include "ops/op_table.hpp"
#include "tensor/arena.hpp"

#include <cstdint>

namespace konclave {

/// What a layer needs to run, whatever it is. Passed down, never stored.
struct Context {
  ExecSpace exec;
  Operations& operations;
  Arena& activations;  ///< what backward needs: lives as long as the micro-batch
  Arena& scratch;      ///< temporaries: a layer frees what it took
};

/// The sequences of one micro-batch as rows: sequence i has rows offsets(i) .. offsets(i+1)-1, and
/// positions(t) is the place of row t in its sequence. Layers go by these, not by row numbers.
struct Sequences {
  int count = 0;
  std::int64_t tokens = 0;     ///< rows in all
  std::int64_t longest = 0;    ///< rows of the longest sequence
  View1<const int> offsets;    ///< (count + 1)
  View1<const int> positions;  ///< (T)
};

}  // namespace konclave
