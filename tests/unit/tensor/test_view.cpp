#include "tensor/arena.hpp"
#include "tensor/host_copy.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>

#include <numeric>

namespace konclave {
namespace {

class AnyViewTest : public ::testing::Test {
 protected:
  /// A view of 0, 1, 2, ... in memory order.
  AnyView counting(const AnyView& view) {
    std::vector<double> values(static_cast<std::size_t>(view.size()));
    std::iota(values.begin(), values.end(), 0);
    from_doubles(exec_, values, view);
    return view;
  }
  std::vector<double> values(const AnyIn& view) { return to_doubles(exec_, view); }

  MemoryAccount account_;
  Arena arena_{account_, MemoryClass::buffers, "test"};
  ExecSpace exec_;
};

TEST_F(AnyViewTest, KnowsItsShape) {
  const AnyView view = arena_.make(DType::bf16, 2, 3, 4);
  EXPECT_EQ(view.rank(), 3);
  EXPECT_EQ(view.extent(0), 2);
  EXPECT_EQ(view.extent(1), 3);
  EXPECT_EQ(view.extent(2), 4);
  EXPECT_EQ(view.size(), 24);
  EXPECT_EQ(view.bytes(), 48U);
  EXPECT_EQ(view.describe(), "bf16 (2, 3, 4)");
}

TEST_F(AnyViewTest, IsEmptyWithoutMemoryOrElements) {
  EXPECT_TRUE(AnyView().empty());
  EXPECT_EQ(AnyView().size(), 0);
  EXPECT_TRUE(arena_.make(DType::fp32, 0, 4).empty());
  EXPECT_FALSE(arena_.make(DType::fp32, 1, 4).empty());
}

TEST_F(AnyViewTest, TypedViewsAreRowMajor) {
  const AnyView view = arena_.make(DType::fp64, 2, 3, 4);
  const auto cube = view.as3<double>();
  EXPECT_EQ(cube.data(), view.data());
  EXPECT_EQ(cube.extent(2), 4U);
  EXPECT_EQ(cube.stride(0), 12U);
  EXPECT_EQ(cube.stride(1), 4U);
  EXPECT_EQ(cube.stride(2), 1U);
  const auto matrix = view.reshape(6, 4).as2<double>();
  EXPECT_EQ(matrix.extent(0), 6U);
  EXPECT_EQ(matrix.stride(0), 4U);
  EXPECT_EQ(view.flat<double>().size(), 24U);
}

TEST_F(AnyViewTest, RefusesTheWrongTypeOrRank) {
  const AnyView view = arena_.make(DType::fp32, 2, 3);
  expect_error([&] { view.as2<double>(); }, ExitCode::internal, {"fp64", "fp32 (2, 3)"});
  expect_error([&] { view.as1<float>(); }, ExitCode::internal, {"rank 1", "fp32 (2, 3)"});
  expect_error([&] { view.flat<Bf16>(); }, ExitCode::internal, {"bf16", "fp32 (2, 3)"});
}

TEST_F(AnyViewTest, SliceIsAWindowOnTheSameMemory) {
  for (const DType type : {DType::bf16, DType::fp32, DType::fp64}) {
    const AnyView view = counting(arena_.make(type, 4, 3));
    const AnyView middle = view.slice(1, 2);
    EXPECT_EQ(middle.describe(), std::string(name_of(type)) + " (2, 3)");
    EXPECT_EQ(values(middle), (std::vector<double>{3, 4, 5, 6, 7, 8}));
    from_doubles(exec_, {9, 9, 9}, view.slice(3, 1));
    EXPECT_EQ(values(view).back(), 9) << "a slice copies nothing";
  }
  const AnyView cube = counting(arena_.make(DType::fp32, 3, 2, 2));
  EXPECT_EQ(values(cube.slice(2, 1)), (std::vector<double>{8, 9, 10, 11}));
  EXPECT_EQ(values(counting(arena_.make(DType::fp32, 5)).slice(3, 2)), (std::vector<double>{3, 4}));
}

TEST_F(AnyViewTest, SliceMayBeEmptyButNotOutside) {
  const AnyView view = arena_.make(DType::fp32, 4, 3);
  EXPECT_EQ(view.slice(4, 0).size(), 0);
  EXPECT_EQ(arena_.make(DType::fp32, 0, 3).slice(0, 0).size(), 0);
  expect_error([&] { view.slice(3, 2); }, ExitCode::internal, {"slice", "fp32 (4, 3)"});
  expect_error([&] { view.slice(-1, 1); }, ExitCode::internal, {"slice"});
  expect_error([&] { view.slice(0, -1); }, ExitCode::internal, {"slice"});
  expect_error([] { AnyView().slice(0, 0); }, ExitCode::internal, {"slice"});
}

TEST_F(AnyViewTest, ReshapeKeepsElementsAndSize) {
  const AnyView view = counting(arena_.make(DType::fp32, 2, 3, 2));
  EXPECT_EQ(view.reshape(4, 3).describe(), "fp32 (4, 3)");
  EXPECT_EQ(values(view.reshape(4, 3)), values(view));
  expect_error([&] { view.reshape(5, 2); }, ExitCode::internal, {"reshape", "fp32 (2, 3, 2)"});
}

TEST_F(AnyViewTest, ReadOnlyViewsComeFromMutableOnes) {
  const AnyView view = counting(arena_.make(DType::fp32, 2, 2));
  const AnyIn in = view;
  EXPECT_EQ(in.data(), view.data());
  EXPECT_TRUE(same_shape(in, view));
  EXPECT_EQ(values(in.slice(1, 1)), (std::vector<double>{2, 3}));
  static_assert(!std::is_constructible_v<AnyView, AnyIn>, "never back to a mutable one");
  static_assert(std::is_same_v<decltype(in.as2<float>()), View2<const float>>);
}

TEST_F(AnyViewTest, SameShapeLooksAtRankAndExtents) {
  const AnyView view = arena_.make(DType::fp32, 2, 3);
  EXPECT_TRUE(same_shape(view, arena_.make(DType::bf16, 2, 3))) << "types may differ";
  EXPECT_FALSE(same_shape(view, arena_.make(DType::fp32, 3, 2)));
  EXPECT_FALSE(same_shape(arena_.make(DType::fp32, 3), arena_.make(DType::fp32, 3, 1)));
}

}  // namespace
}  // namespace konclave
