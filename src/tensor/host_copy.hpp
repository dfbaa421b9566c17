#pragma once

#include "tensor/arena.hpp"
#include "tensor/view.hpp"

#include <vector>

namespace konclave {

/// Copies between device views and host memory. Each call waits for `exec`, so they belong where
/// data leaves the device anyway: reports, files, the host loops of backend `reference`.

template <typename X>
std::vector<std::remove_const_t<X>> to_host(const ExecSpace& exec, const View1<X>& view) {
  using Value = std::remove_const_t<X>;
  std::vector<Value> host(view.size());
  const Kokkos::View<Value*, Kokkos::LayoutRight, HostSpace,
                     Kokkos::MemoryTraits<Kokkos::Unmanaged>>
      target(host.data(), host.size());
  Kokkos::deep_copy(exec, target, View1<const Value>(view));
  fence(exec, "konclave::to_host");
  return host;
}

template <typename X>
void to_device(const ExecSpace& exec, const std::vector<X>& host, const View1<X>& view) {
  require(host.size() == view.size(), "to_device: sizes differ");
  const Kokkos::View<const X*, Kokkos::LayoutRight, HostSpace,
                     Kokkos::MemoryTraits<Kokkos::Unmanaged>>
      source(host.data(), host.size());
  Kokkos::deep_copy(exec, view, source);
  fence(exec, "konclave::to_device");
}

/// The same in new memory of `arena`.
template <typename X>
View1<X> upload(const ExecSpace& exec, Arena& arena, const std::vector<X>& host) {
  View1<X> view = arena.make1<X>(static_cast<std::int64_t>(host.size()));
  to_device(exec, host, view);
  return view;
}

/// The elements of a tagged view, in memory order, converted to double.
std::vector<double> to_doubles(const ExecSpace& exec, const AnyIn& view);
/// Fills a tagged view, in memory order; values are rounded to its type.
void from_doubles(const ExecSpace& exec, const std::vector<double>& host, const AnyView& view);

/// Raw bytes, as files hold them.
void copy_to_host(const ExecSpace& exec, const AnyIn& view, void* target);
void copy_from_host(const ExecSpace& exec, const void* source, const AnyView& view);

}  // namespace konclave
