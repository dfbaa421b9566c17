#include "tensor/arena.hpp"
#include "tensor/host_copy.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>

#include <cstring>

namespace konclave {
namespace {

class HostCopy : public ::testing::Test {
 protected:
  MemoryAccount account_;
  Arena arena_{account_, MemoryClass::buffers, "test"};
  ExecSpace exec_;
};

TEST_F(HostCopy, TypedThereAndBack) {
  const View1<int> view = arena_.make1<int>(4);
  const std::vector<int> values{3, -1, 0, 2147483647};

  to_device(exec_, values, view);

  EXPECT_EQ(to_host(exec_, view), values);
  EXPECT_EQ(to_host(exec_, View1<const int>(view)), values);
}

TEST_F(HostCopy, TaggedThereAndBackInMemoryOrder) {
  const std::vector<double> values{1, -2.5, 0, 4, 0.125, -6};  // exact in every type
  for (const DType type : {DType::bf16, DType::fp32, DType::fp64}) {
    const AnyView view = arena_.make(type, 1, 2, 3);
    from_doubles(exec_, values, view);
    EXPECT_EQ(to_doubles(exec_, view), values) << name_of(type);
  }
}

TEST_F(HostCopy, ValuesAreRoundedToTheType) {
  const double third = 1.0 / 3.0;
  const AnyView half = arena_.make(DType::bf16, 1), single = arena_.make(DType::fp32, 1);
  from_doubles(exec_, {third}, half);
  from_doubles(exec_, {third}, single);
  EXPECT_EQ(to_doubles(exec_, half), std::vector<double>{Bf16(static_cast<float>(third))});
  EXPECT_EQ(to_doubles(exec_, single), std::vector<double>{static_cast<float>(third)});
}

TEST_F(HostCopy, RawBytes) {
  const std::vector<float> values{1, 2, 3};
  const AnyView view = arena_.make(DType::fp32, 3);
  std::vector<float> back(3);

  copy_from_host(exec_, values.data(), view);
  copy_to_host(exec_, view, back.data());

  EXPECT_EQ(back, values);
}

TEST_F(HostCopy, OfNothing) {
  const AnyView view = arena_.make(DType::fp32, 0, 5);
  from_doubles(exec_, {}, view);
  copy_from_host(exec_, nullptr, view);
  copy_to_host(exec_, view, nullptr);
  EXPECT_TRUE(to_doubles(exec_, view).empty());
  EXPECT_TRUE(to_host(exec_, View1<float>()).empty());
}

TEST_F(HostCopy, WantsEqualSizes) {
  expect_error(
      [&] {
        from_doubles(exec_, {1, 2}, arena_.make(DType::fp32, 3));
      },
      ExitCode::internal, {"sizes"});
}

}  // namespace
}  // namespace konclave
