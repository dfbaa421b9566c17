#pragma once

#include "ops/rows.hpp"

/// Rows of logits, shared out over teams: what the router's kernels have in common.
namespace konclave::ops {

/// Keeps a sum of sigmoids above 0.
inline constexpr double kTinySum = 1e-20;

namespace detail {

/// Joins `start` and f(0) .. f(size-1) in a fixed order, in vectors where the compiler has them;
/// `start` may be joined any number of times.
template <typename A, typename F, typename Join>
KOKKOS_INLINE_FUNCTION A join_by_lanes(int size, A start, const F& f, const Join& join) {
  constexpr int kWidth = 16;
  int i = 0;
  if (size < kWidth) {
    for (; i < size; ++i) start = join(start, f(i));
    return start;
  }
  A lanes[kWidth];
  for (int l = 0; l < kWidth; ++l) lanes[l] = start;
  for (; i + kWidth <= size; i += kWidth) {
    for (int l = 0; l < kWidth; ++l) lanes[l] = join(lanes[l], f(i + l));
  }
  for (int l = 0; i < size; ++i, ++l) lanes[l] = join(lanes[l], f(i));
  for (int width = kWidth / 2; width > 0; width /= 2) {
    for (int l = 0; l < width; ++l) lanes[l] = join(lanes[l], lanes[l + width]);
  }
  return lanes[0];
}

}  // namespace detail

/// The sum of f(0) .. f(size-1). For short rows: a thread has one for itself.
template <typename A, typename F> KOKKOS_INLINE_FUNCTION A lane_sum(int size, const F& f) {
  return detail::join_by_lanes(size, A(0), f, [](A a, A b) { return a + b; });
}

/// The largest of values[0 .. size-1], which may pass over a NaN.
template <typename A> KOKKOS_INLINE_FUNCTION A lane_max(int size, const A* values) {
  return detail::join_by_lanes(
      size, values[0], [=](int i) { return values[i]; }, [](A a, A b) { return b > a ? b : a; });
}

/// Sequences cut into parts of about kRows rows: as many for each, so that nobody has to know how
/// long they are here.
struct SequenceParts {
  static constexpr std::int64_t kRows = 256;

  View1<const int> offsets;  ///< (Q+1), of sequences
  int of_each = 1;

  SequenceParts(const View1<const int>& sequence_offsets, std::int64_t rows)
      : offsets(sequence_offsets), of_each(of_each_sequence(sequences(), rows)) {}

  static int of_each_sequence(std::int64_t sequences, std::int64_t rows) {
    const std::int64_t per_part = kRows * (sequences > 1 ? sequences : 1);
    return rows <= per_part ? 1 : static_cast<int>((rows + per_part - 1) / per_part);
  }
  std::int64_t sequences() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
  std::int64_t count() const { return sequences() * of_each; }

  /// One team for each part.
  Team policy(const ExecSpace& exec) const {
    const int league = static_cast<int>(count());
    if constexpr (kHostExecution) {
      return {exec, league, 1};
    } else {
      return {exec, league, Kokkos::AUTO};
    }
  }
  /// First row of a part; that of the next one, where this one ends.
  KOKKOS_INLINE_FUNCTION int begin(int part) const {
    const int q = part / of_each;
    const std::int64_t rows = offsets(q + 1) - offsets(q);
    return offsets(q) + static_cast<int>(rows * (part - q * of_each) / of_each);
  }
  KOKKOS_INLINE_FUNCTION int end(int part) const {
    return (part + 1) % of_each == 0 ? offsets(part / of_each + 1) : begin(part + 1);
  }
};

}  // namespace konclave::ops
