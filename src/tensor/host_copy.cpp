#include "tensor/host_copy.hpp"

#include <cstdint>

namespace konclave {

namespace {
template <typename Byte>
using HostBytes =
    Kokkos::View<Byte*, Kokkos::LayoutRight, HostSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;
}  // namespace

std::vector<double> to_doubles(const ExecSpace& exec, const AnyIn& view) {
  return dispatch(view.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    const std::vector<X> host = to_host(exec, view.flat<X>());
    return std::vector<double>(host.begin(), host.end());
  });
}

void from_doubles(const ExecSpace& exec, const std::vector<double>& host, const AnyView& view) {
  dispatch(view.type(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    std::vector<X> values(host.size());
    for (std::size_t i = 0; i < host.size(); ++i) values[i] = X(static_cast<Accum<X>>(host[i]));
    to_device(exec, values, view.flat<X>());
  });
}

void copy_to_host(const ExecSpace& exec, const AnyIn& view, void* target) {
  if (view.empty()) return;
  const View1<const char> source(static_cast<const char*>(view.data()), view.bytes());
  Kokkos::deep_copy(exec, HostBytes<char>(static_cast<char*>(target), view.bytes()), source);
  fence(exec, "konclave::copy_to_host");
}

void copy_from_host(const ExecSpace& exec, const void* source, const AnyView& view) {
  if (view.empty()) return;
  const View1<char> target(static_cast<char*>(view.data()), view.bytes());
  Kokkos::deep_copy(exec, target,
                    HostBytes<const char>(static_cast<const char*>(source), view.bytes()));
  fence(exec, "konclave::copy_from_host");
}

}  // namespace konclave
