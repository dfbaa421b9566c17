#pragma once

#include "base/dtype.hpp"
#include "tensor/kokkos.hpp"

#include <array>
#include <cstdint>
#include <string>
#include <type_traits>

namespace konclave {

/// Views of device memory, row-major and never strided: the last axis is contiguous. They borrow:
/// memory belongs to an Arena, so copying a view costs nothing.
template <typename Data>
using View =
    Kokkos::View<Data, Kokkos::LayoutRight, MemSpace, Kokkos::MemoryTraits<Kokkos::Unmanaged>>;
template <typename X> using View1 = View<X*>;
template <typename X> using View2 = View<X**>;
template <typename X> using View3 = View<X***>;

/// Read-only inputs; not deduced, so that a mutable view converts at the call.
template <typename X> using In1 = std::type_identity_t<View1<const X>>;
template <typename X> using In2 = std::type_identity_t<View2<const X>>;
template <typename X> using In3 = std::type_identity_t<View3<const X>>;

/// A view of rank 1 to 3 whose element type is a tag. Layers hold these; an operation turns them
/// into typed views at its door with `dispatch(type, ...)` and `as1/as2/as3`.
template <bool kConst> class BasicAnyView {
 public:
  template <typename X> using Element = std::conditional_t<kConst, const X, X>;
  using Pointer = std::conditional_t<kConst, const void*, void*>;

  BasicAnyView() = default;
  BasicAnyView(DType type, Pointer data, std::array<std::int64_t, 3> extents, int rank)
      : data_(data), extents_(extents), rank_(rank), type_(type) {}
  template <bool kOther>
  requires(kConst && !kOther) BasicAnyView(const BasicAnyView<kOther>& other)
      : BasicAnyView(other.type(), other.data(), other.extents(), other.rank()) {}

  DType type() const { return type_; }
  int rank() const { return rank_; }
  Pointer data() const { return data_; }
  bool empty() const { return data_ == nullptr || size() == 0; }
  const std::array<std::int64_t, 3>& extents() const { return extents_; }
  std::int64_t extent(int axis) const { return axis < rank_ ? extents_[axis] : 1; }
  std::int64_t size() const { return rank_ == 0 ? 0 : extent(0) * extent(1) * extent(2); }
  std::size_t bytes() const { return static_cast<std::size_t>(size()) * size_of(type_); }

  template <typename X> View1<Element<X>> as1() const {
    return View1<Element<X>>(checked<X>(1), index(0));
  }
  template <typename X> View2<Element<X>> as2() const {
    return View2<Element<X>>(checked<X>(2), index(0), index(1));
  }
  template <typename X> View3<Element<X>> as3() const {
    return View3<Element<X>>(checked<X>(3), index(0), index(1), index(2));
  }
  /// All elements in memory order, whatever the rank.
  template <typename X> View1<Element<X>> flat() const {
    return View1<Element<X>>(checked<X>(rank_), static_cast<std::size_t>(size()));
  }

  /// `count` slices of the first axis from `first` on.
  BasicAnyView slice(std::int64_t first, std::int64_t count) const {
    require(rank_ > 0 && first >= 0 && count >= 0 && first + count <= extents_[0],
            "slice outside of " + describe());
    const std::int64_t stride = extents_[0] == 0 ? 0 : size() / extents_[0];
    auto extents = extents_;
    extents[0] = count;
    return {type_, offset(first * stride), extents, rank_};
  }
  /// The same elements in another shape of rank 2.
  BasicAnyView reshape(std::int64_t rows, std::int64_t columns) const {
    require(rows * columns == size(), "reshape changes the size of " + describe());
    return {type_, data_, {rows, columns, 1}, 2};
  }
  /// The same elements along one axis.
  BasicAnyView flatten() const { return {type_, data_, {size(), 1, 1}, 1}; }
  /// "bf16 (4, 128)".
  std::string describe() const {
    std::string text = std::string(name_of(type_)) + " (";
    for (int axis = 0; axis < rank_; ++axis) {
      text += (axis > 0 ? ", " : "") + std::to_string(extents_[axis]);
    }
    return text + ")";
  }

 private:
  template <typename X> Element<X>* checked(int rank) const {
    require(kDTypeOf<X> == type_ && rank == rank_,
            "a view of " + std::string(name_of(kDTypeOf<X>)) + " and rank " + std::to_string(rank) +
                " was asked of " + describe());
    return static_cast<Element<X>*>(data_);
  }
  std::size_t index(int axis) const { return static_cast<std::size_t>(extents_[axis]); }
  Pointer offset(std::int64_t elements) const {
    using Byte = Element<char>;
    return data_ == nullptr
               ? nullptr
               : static_cast<Byte*>(data_) + elements * static_cast<std::int64_t>(size_of(type_));
  }

  Pointer data_ = nullptr;
  std::array<std::int64_t, 3> extents_{0, 1, 1};
  int rank_ = 0;
  DType type_ = DType::fp32;
};

using AnyView = BasicAnyView<false>;
using AnyIn = BasicAnyView<true>;

inline bool same_shape(const AnyIn& a, const AnyIn& b) {
  return a.rank() == b.rank() && a.extents() == b.extents();
}

}  // namespace konclave
