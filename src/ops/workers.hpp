#pragma once

#include "tensor/kokkos.hpp"

#include <algorithm>
#include <cstdint>

namespace konclave::ops {

/// How many threads there are: each has scratch memory of its own.
inline int workers(const ExecSpace& exec) { return std::max(1, exec.concurrency()); }

/// f(worker, item) for all items; the items of one worker come one after the other. What an item
/// gives must not depend on its worker, of which there may be any number.
template <typename F>
void for_each_item(const char* label, const ExecSpace& exec, std::int64_t items, const F& f) {
  const std::int64_t count = std::min<std::int64_t>(items, workers(exec));
  Kokkos::parallel_for(label, Range(exec, 0, count), [=](std::int64_t worker) {
    for (std::int64_t item = worker; item < items; item += count) f(worker, item);
  });
}

}  // namespace konclave::ops
