#pragma once

#include "tensor/host_copy.hpp"
#include "tests/support/random.hpp"

#include <array>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

namespace konclave {

/// Memory of a test: views made here live as long as this object. Each has an allocation of its
/// own, so that the address sanitizer sees a step past its end.
class Tensors {
 public:
  explicit Tensors(const ExecSpace& exec) : exec_(exec) {}

  template <typename... Extents>
  AnyView random(std::string_view purpose, DType type, Extents... extents) {
    const AnyView view = make(type, {static_cast<std::int64_t>(extents)...});
    fill_random(exec_, purpose, view);
    return view;
  }
  /// All NaN: what is to be overwritten, and must not be read.
  template <typename... Extents> AnyView poisoned(DType type, Extents... extents) {
    const AnyView view = make(type, {static_cast<std::int64_t>(extents)...});
    poison(view);
    return view;
  }
  AnyView values(DType type, const std::vector<double>& values, std::int64_t rows,
                 std::int64_t columns) {
    const AnyView view = make(type, {rows, columns});
    from_doubles(exec_, values, view);
    return view;
  }
  AnyView copy(const AnyIn& other) {
    const AnyView view(other.type(), allocate(other.bytes()), other.extents(), other.rank());
    from_doubles(exec_, to_doubles(exec_, other), view);
    return view;
  }
  View1<const int> integers(const std::vector<int>& values) {
    const View1<int> view(static_cast<int*>(allocate(values.size() * sizeof(int))), values.size());
    to_device(exec_, values, view);
    return view;
  }
  /// A workspace of exactly so many bytes.
  AnyView workspace(std::size_t bytes, DType type) {
    return poisoned(accum_type(type), bytes / size_of(accum_type(type)));
  }
  void poison(const AnyView& view) const {
    constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
    from_doubles(exec_, std::vector<double>(static_cast<std::size_t>(view.size()), kNan), view);
  }

 private:
  AnyView make(DType type, const std::vector<std::int64_t>& extents) {
    std::array<std::int64_t, 3> filled{1, 1, 1};
    std::int64_t size = 1;
    for (std::size_t axis = 0; axis < extents.size(); ++axis) {
      filled[axis] = extents[axis];
      size *= extents[axis];
    }
    void* data = allocate(static_cast<std::size_t>(size) * size_of(type));
    return {type, data, filled, static_cast<int>(extents.size())};
  }
  void* allocate(std::size_t bytes) {
    memory_.emplace_back(Kokkos::view_alloc(Kokkos::WithoutInitializing, "test"), bytes);
    return memory_.back().data();
  }

  ExecSpace exec_;
  std::vector<Kokkos::View<char*, MemSpace>> memory_;
};

}  // namespace konclave
