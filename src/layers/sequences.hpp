#pragma once

#include "layers/context.hpp"

#include <vector>

namespace konclave {

/// Positions of a sequence of `length` that rank `rank` of `ranks` holds, ascending: the sequence
/// is cut into 2 `ranks` chunks, and the rank has chunks `rank` and 2 ranks - 1 - rank, so that all
/// ranks have the same work behind a causal mask. All of them for one rank. Throws Error(internal)
/// when the length is no multiple of 2 ranks.
std::vector<int> zigzag_positions(int length, int rank, int ranks);

/// `count` sequences of `length` as a rank of cp has them; tables in memory of `arena`.
Sequences make_sequences(const ExecSpace& exec, Arena& arena, int count, int length, int rank,
                         int ranks);

}  // namespace konclave
