#pragma once

#include "tensor/view.hpp"

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

/// Rows of a matrix as teams of Kokkos: one team a row, its elements spread over the team. On the
/// host a team is one thread and its part a plain loop that the compiler vectorises; sums then
/// have a fixed order, whatever the number of threads.
namespace konclave::ops {

using RowMember = Team::member_type;

/// True when kernels run on threads of the host.
inline constexpr bool kHostExecution = std::is_same_v<ExecSpace, Kokkos::DefaultHostExecutionSpace>;

/// What one pass leaves in the second cache for the next one: so much that is made and used at once
/// does not count as moved.
inline constexpr std::int64_t kNearBytes = std::int64_t{512} << 10;

/// One team for each of `rows` rows.
inline Team row_policy(const ExecSpace& exec, std::int64_t rows) {
  const int league = static_cast<int>(rows);
  if constexpr (kHostExecution) {
    return {exec, league, 1};
  } else {
    return {exec, league, Kokkos::AUTO};
  }
}

namespace detail {

/// Partial results of a reduction on the host: enough for several vectors of any width.
inline constexpr int kLanes = 32;

/// Joins `start` and f(0) .. f(size-1) lane by lane, then the lanes in order. A plain loop would
/// not vectorise: the compiler may not reorder sums.
template <typename A, typename F, typename Join>
KOKKOS_INLINE_FUNCTION A reduce_lanes(std::int64_t size, A start, const F& f, const Join& join) {
  A lanes[kLanes];
  for (int l = 0; l < kLanes; ++l) lanes[l] = start;
  std::int64_t j = 0;
  for (; j + kLanes <= size; j += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] = join(lanes[l], f(j + l));
  }
  for (int l = 0; j < size; ++j, ++l) lanes[l] = join(lanes[l], f(j));
  for (int l = 0; l < kLanes; ++l) start = join(start, lanes[l]);
  return start;
}

}  // namespace detail

/// f(0) .. f(size-1), in any order.
template <typename F>
KOKKOS_INLINE_FUNCTION void row_for(const RowMember& team, std::int64_t size, const F& f) {
  KOKKOS_IF_ON_HOST(((void)team; for (std::int64_t j = 0; j < size; ++j) f(j);))
  KOKKOS_IF_ON_DEVICE(
      (Kokkos::parallel_for(Kokkos::TeamVectorRange(team, size), [&](std::int64_t j) { f(j); });))
}

/// to[0 .. size-1] = from[0 .. size-1], of other memory.
template <typename X>
KOKKOS_INLINE_FUNCTION void row_copy(const RowMember& team, std::int64_t size, const X* from,
                                     X* to) {
  KOKKOS_IF_ON_HOST(
      ((void)team; std::int64_t j = 0; for (; j + detail::kLanes <= size; j += detail::kLanes) {
        std::memcpy(to + j, from + j, detail::kLanes * sizeof(X));
      } for (; j < size; ++j) to[j] = from[j];))
  KOKKOS_IF_ON_DEVICE((Kokkos::parallel_for(Kokkos::TeamVectorRange(team, size),
                                            [&](std::int64_t j) { to[j] = from[j]; });))
}

/// Asks for the line of memory at `address`, which will be read.
KOKKOS_INLINE_FUNCTION void prefetch(const void* address) {
  KOKKOS_IF_ON_HOST((__builtin_prefetch(address);))
  KOKKOS_IF_ON_DEVICE(((void)address;))
}

/// A number of neighbouring elements that a loop knows when it is compiled.
template <int kCount> using Tile = std::integral_constant<int, kCount>;

/// f(Tile<n>(), j) for all elements 0 .. size-1, n of them from j on at a time: several vectors on
/// the host, one on a device. For kernels whose outputs may be their inputs: they load a tile into
/// local arrays, work there, and store it. Where memory may overlap, a plain loop stays scalar.
template <typename F>
KOKKOS_INLINE_FUNCTION void row_tiles(const RowMember& team, std::int64_t size, const F& f) {
  KOKKOS_IF_ON_HOST(((void)team; std::int64_t j = 0;
                     for (; j + detail::kLanes <= size; j += detail::kLanes)
                         f(Tile<detail::kLanes>(), j);
                     for (; j < size; ++j) f(Tile<1>(), j);))
  KOKKOS_IF_ON_DEVICE((Kokkos::parallel_for(Kokkos::TeamVectorRange(team, size),
                                            [&](std::int64_t j) { f(Tile<1>(), j); });))
}

/// The same for kernels that also sum over the row: f(Tile<n>(), j, part) adds to part[0] ..
/// part[n-1]. The sum of all is known to the whole team.
template <typename A, typename F>
KOKKOS_INLINE_FUNCTION A row_tiles_sum(const RowMember& team, std::int64_t size, const F& f) {
  A sum = 0;
  KOKKOS_IF_ON_HOST(((void)team; A lanes[detail::kLanes] = {}; std::int64_t j = 0;
                     for (; j + detail::kLanes <= size; j += detail::kLanes)
                         f(Tile<detail::kLanes>(), j, lanes);
                     for (int l = 0; j < size; ++j, ++l) f(Tile<1>(), j, lanes + l);
                     for (int l = 0; l < detail::kLanes; ++l) sum += lanes[l];))
  KOKKOS_IF_ON_DEVICE((Kokkos::parallel_reduce(
                           Kokkos::TeamVectorRange(team, size),
                           [&](std::int64_t j, A& part) { f(Tile<1>(), j, &part); }, sum);))
  return sum;
}

/// The sum of f(0) .. f(size-1), known to the whole team.
template <typename A, typename F>
KOKKOS_INLINE_FUNCTION A row_sum(const RowMember& team, std::int64_t size, const F& f) {
  A sum = 0;
  KOKKOS_IF_ON_HOST(
      ((void)team; sum = detail::reduce_lanes(size, sum, f, [](A a, A b) { return a + b; });))
  KOKKOS_IF_ON_DEVICE((Kokkos::parallel_reduce(
                           Kokkos::TeamVectorRange(team, size),
                           [&](std::int64_t j, A& part) { part += f(j); }, sum);))
  return sum;
}

/// The largest of `floor` and f(0) .. f(size-1), known to the whole team.
template <typename A, typename F>
KOKKOS_INLINE_FUNCTION A row_max(const RowMember& team, std::int64_t size, A floor, const F& f) {
  A largest = floor;
  KOKKOS_IF_ON_HOST(((void)team; largest = detail::reduce_lanes(
                                     size, floor, f, [](A a, A b) { return a > b ? a : b; });))
  KOKKOS_IF_ON_DEVICE((Kokkos::parallel_reduce(
                           Kokkos::TeamVectorRange(team, size),
                           [&](std::int64_t j, A& part) {
                             const A value = f(j);
                             part = value > part ? value : part;
                           },
                           Kokkos::Max<A>(largest));
                       largest = largest > floor ? largest : floor;))
  return largest;
}

/// sum[h] += f(0,h) + ... + f(rows-1,h), added in this order whatever the space.
/// A thread takes neighbouring columns on the host (a vectorised loop), one on a device.
template <typename A, typename F>
void accumulate_columns(const std::string& label, const ExecSpace& exec, std::int64_t rows,
                        std::int64_t columns, const View1<A>& sum, const F& f) {
  constexpr std::int64_t kWidth = kHostExecution ? 64 : 1;
  A* const out = sum.data();
  Kokkos::parallel_for(
      label, Range(exec, 0, (columns + kWidth - 1) / kWidth),
      KOKKOS_LAMBDA(const std::int64_t chunk) {
        const std::int64_t first = chunk * kWidth;
        const std::int64_t width = columns - first < kWidth ? columns - first : kWidth;
        A part[kWidth] = {};
        for (std::int64_t t = 0; t < rows; ++t) {
          for (std::int64_t h = 0; h < width; ++h) part[h] += f(t, first + h);
        }
        for (std::int64_t h = 0; h < width; ++h) out[first + h] += part[h];
      });
}

}  // namespace konclave::ops
