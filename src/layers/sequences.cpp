#include "layers/sequences.hpp"

#include "base/fault.hpp"
#include "tensor/host_copy.hpp"

#include <string>

namespace konclave {

namespace {

void append_range(std::vector<int>& values, int first, int count) {
  for (int i = 0; i < count; ++i) values.push_back(first + i);
}

std::vector<int> chunk_positions(int length, int ranks, int first_chunk, int second_chunk) {
  const int size = length / (2 * ranks);
  std::vector<int> positions;
  append_range(positions, first_chunk * size, size);
  append_range(positions, second_chunk * size, size);
  return positions;
}

/// Positions that the tables say `rank` has.
std::vector<int> table_positions(int length, int rank, int ranks) {
  std::vector<int> positions = zigzag_positions(length, rank, ranks);
  if (fault("context.wrong_zigzag") && ranks > 1) {
    positions = chunk_positions(length, ranks, rank, ranks + rank);
  }
  return positions;
}

/// 0, step, 2 step, ... with `count` + 1 elements.
std::vector<int> multiples(int count, int step) {
  std::vector<int> values;
  for (int i = 0; i <= count; ++i) values.push_back(i * step);
  return values;
}

std::vector<int> repeated(const std::vector<int>& values, int count) {
  std::vector<int> all;
  for (int i = 0; i < count; ++i) all.insert(all.end(), values.begin(), values.end());
  return all;
}

WholeSequences make_whole(const ExecSpace& exec, Arena& arena, int count, int length, int ranks) {
  std::vector<int> positions, rank_positions, place_of;
  append_range(positions, 0, length);
  for (int rank = 0; rank < ranks; ++rank) {
    const std::vector<int> part = table_positions(length, rank, ranks);
    for (int i = 0; i < count; ++i) {
      for (const int position : part) {
        rank_positions.push_back(position);
        place_of.push_back(i * length + position);
      }
    }
  }
  std::vector<int> arrival_of(place_of.size());
  for (std::size_t row = 0; row < place_of.size(); ++row) {
    arrival_of[static_cast<std::size_t>(place_of[row])] = static_cast<int>(row);
  }
  return {length,
          upload(exec, arena, multiples(count, length)),
          upload(exec, arena, repeated(positions, count)),
          upload(exec, arena, rank_positions),
          upload(exec, arena, arrival_of),
          upload(exec, arena, place_of)};
}

}  // namespace

std::vector<int> zigzag_positions(int length, int rank, int ranks) {
  if (ranks == 1) {
    std::vector<int> all;
    append_range(all, 0, length);
    return all;
  }
  require(length % (2 * ranks) == 0, "a sequence of " + std::to_string(length) +
                                         " cannot be cut into two chunks for each of " +
                                         std::to_string(ranks) + " ranks");
  return chunk_positions(length, ranks, rank, 2 * ranks - 1 - rank);
}

Sequences make_sequences(const ExecSpace& exec, Arena& arena, int count, int length, int rank,
                         int ranks) {
  const std::vector<int> positions = table_positions(length, rank, ranks);
  const int rows = static_cast<int>(positions.size());
  Sequences sequences{count,
                      std::int64_t{count} * rows,
                      rows,
                      upload(exec, arena, multiples(count, rows)),
                      upload(exec, arena, repeated(positions, count)),
                      {}};
  if (ranks > 1) sequences.whole = make_whole(exec, arena, count, length, ranks);
  return sequences;
}

}  // namespace konclave
