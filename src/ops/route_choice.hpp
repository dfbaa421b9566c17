#pragma once

#include "tensor/kokkos.hpp"

#include <limits>

/// How a thread chooses the experts of a row. A NaN counts as -inf, and equal values go by lowest
/// index.
namespace konclave::ops {

/// A value as the choice sees it.
template <typename A> KOKKOS_INLINE_FUNCTION A comparable(A value) {
  return value == value ? value : -std::numeric_limits<A>::infinity();
}

namespace detail {

/// Candidates that are compared with each other, each with each, in vectors.
inline constexpr int kCandidates = 32;

/// The best of values[begin .. end-1] behind `last` in the order (larger value, lower index);
/// last = -1: of all. There is one.
template <typename A>
KOKKOS_INLINE_FUNCTION int best_behind(const A* values, int begin, int end, int last) {
  const A bound = last < 0 ? A(0) : comparable(values[last]);
  int best = -1;
  A largest = 0;
  for (int i = begin; i < end; ++i) {
    const A value = comparable(values[i]);
    const bool behind = last < 0 || value < bound || (value == bound && i > last);
    if (behind && (best < 0 || value > largest)) {
      largest = value;
      best = i;
    }
  }
  return best;
}

/// ranks[i] = how many of the first `count` values go before the i-th one. There are kWidth values,
/// with anything behind the first ones.
template <int kWidth, typename A>
KOKKOS_INLINE_FUNCTION void rank_in_width(const A* values, int count, int* ranks) {
  for (int i = 0; i < kWidth; ++i) ranks[i] = 0;
  for (int j = 0; j < count; ++j) {
    const A value = values[j];
    for (int i = 0; i < kWidth; ++i) {
      ranks[i] += int(value > values[i]) | (int(value == values[i]) & int(j < i));
    }
  }
}
/// The same for kCandidates values.
template <typename A> KOKKOS_INLINE_FUNCTION void rank(const A* values, int count, int* ranks) {
  if (count <= 8) {
    rank_in_width<8>(values, count, ranks);
  } else if (count <= 16) {
    rank_in_width<16>(values, count, ranks);
  } else {
    rank_in_width<kCandidates>(values, count, ranks);
  }
}

/// A bound that K values or more reach, so that nothing below it can be chosen; hardly more reach
/// it, as a rule. K <= kCandidates <= count.
template <typename A> KOKKOS_INLINE_FUNCTION A lower_bound(const A* values, int count, int top_k) {
  constexpr A kLowest = -std::numeric_limits<A>::infinity();
  // The largest one of every kCandidates-th value: K of these reach the K-th largest of them.
  A largest[kCandidates];
  int ranks[kCandidates];
  for (int i = 0; i < kCandidates; ++i) largest[i] = kLowest;
  int begin = 0;
  for (; begin + kCandidates <= count; begin += kCandidates) {
    for (int i = 0; i < kCandidates; ++i) {
      const A value = values[begin + i];
      largest[i] = value > largest[i] ? value : largest[i];
    }
  }
  for (int i = 0; begin + i < count; ++i) {
    const A value = values[begin + i];
    largest[i] = value > largest[i] ? value : largest[i];
  }
  rank(largest, kCandidates, ranks);
  A bound = kLowest;
  for (int i = 0; i < kCandidates; ++i) bound = ranks[i] == top_k - 1 ? largest[i] : bound;
  return bound;
}

}  // namespace detail

/// Writes the places of the K largest values in ascending order. 1 <= K <= count.
template <typename A>
KOKKOS_INLINE_FUNCTION void choose(const A* values, int count, int top_k, int* chosen) {
  constexpr int kMost = detail::kCandidates;
  A candidates[kMost + 1];  // the last one takes what nobody wants
  int places[kMost + 1], ranks[kMost];
  int found = 0;
  if (count <= kMost) {
    for (; found < count; ++found) {
      candidates[found] = comparable(values[found]);
      places[found] = found;
    }
  } else if (top_k <= kMost) {
    const A bound = detail::lower_bound(values, count, top_k);
    for (int i = 0; i < count; ++i) {
      const A value = comparable(values[i]);
      const int place = found < kMost ? found : kMost;
      candidates[place] = value;
      places[place] = i;
      found += value >= bound ? 1 : 0;
    }
  }
  if (found > 0 && found <= kMost) {
    detail::rank(candidates, found, ranks);
    for (int i = 0, k = 0; k < top_k; ++i) {
      chosen[k] = places[i];
      k += ranks[i] < top_k ? 1 : 0;
    }
    return;
  }
  // More choices, or more equal values, than there is room for: one after the other.
  int last = -1;
  for (int k = 0; k < top_k; ++k) {
    last = detail::best_behind(values, 0, count, last);
    int place = k;
    for (; place > 0 && chosen[place - 1] > last; --place) chosen[place] = chosen[place - 1];
    chosen[place] = last;
  }
}

/// Puts -inf in the place of all values but those of the `top_groups` groups that are worth most:
/// the sum of the best `best` values of each. `group` and `worth` are memory for top_groups
/// elements.
template <typename A>
KOKKOS_INLINE_FUNCTION void keep_best_groups(A* values, int count, int groups, int top_groups,
                                             int best, int* group, A* worth) {
  const int size = count / groups;
  for (int g = 0; g < groups; ++g) {
    A sum = 0;
    int last = -1;
    for (int i = 0; i < best; ++i) {
      last = detail::best_behind(values, g * size, (g + 1) * size, last);
      sum += comparable(values[last]);
    }
    if (g >= top_groups && !(sum > worth[top_groups - 1])) continue;
    int place = g < top_groups ? g : top_groups - 1;
    for (; place > 0 && sum > worth[place - 1]; --place) {
      worth[place] = worth[place - 1];
      group[place] = group[place - 1];
    }
    worth[place] = sum;
    group[place] = g;
  }
  for (int g = 0; g < groups; ++g) {
    bool kept = false;
    for (int i = 0; i < top_groups; ++i) kept = kept || group[i] == g;
    for (int i = g * size; i < (g + 1) * size && !kept; ++i) {
      values[i] = -std::numeric_limits<A>::infinity();
    }
  }
}

}  // namespace konclave::ops
