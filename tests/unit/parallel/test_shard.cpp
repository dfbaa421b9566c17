#include "parallel/shard.hpp"
#include "tests/support/expect_error.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>

namespace konclave {
namespace {

using Extents = std::vector<std::int64_t>;
/// (in_whole, in_shard, count) of each run.
using Runs = std::vector<Extents>;

Runs runs_of(const Extents& shape, const Shard& shard) {
  Runs runs;
  for (const ShardRun& run : shard_runs(shape, shard)) {
    runs.push_back({run.in_whole, run.in_shard, run.count});
  }
  return runs;
}

TEST(ShardRuns, AWholeTensorIsOne) {
  EXPECT_EQ(runs_of({7}, Shard::whole({7})), (Runs{{0, 0, 7}}));
  EXPECT_EQ(runs_of({3, 4}, Shard::whole({3, 4})), (Runs{{0, 0, 12}}));
  EXPECT_EQ(runs_of({2, 3, 4}, Shard::whole({2, 3, 4})), (Runs{{0, 0, 24}}));
}

TEST(ShardRuns, APartOfTheLeadingAxisIsOne) {
  EXPECT_EQ(runs_of({6}, Shard::part({6}, 0, 2, 3)), (Runs{{4, 0, 2}}));
  EXPECT_EQ(runs_of({4, 5}, Shard::part({4, 5}, 0, 1, 4)), (Runs{{5, 0, 5}}));
  EXPECT_EQ(runs_of({4, 2, 3}, Shard::part({4, 2, 3}, 0, 1, 2)), (Runs{{12, 0, 12}}));
}

TEST(ShardRuns, APartOfALaterAxisIsOneForEachStepOfThoseBefore) {
  EXPECT_EQ(runs_of({2, 6}, Shard::part({2, 6}, 1, 1, 2)), (Runs{{3, 0, 3}, {9, 3, 3}}));
  EXPECT_EQ(runs_of({2, 4, 3}, Shard::part({2, 4, 3}, 1, 1, 2)), (Runs{{6, 0, 6}, {18, 6, 6}}));
  EXPECT_EQ(runs_of({2, 2, 4}, Shard{{0, 1, 2}, {2, 1, 2}}), (Runs{{6, 0, 2}, {14, 2, 2}}));
}

TEST(ShardRuns, OfNothingThereAreNone) {
  EXPECT_TRUE(runs_of({0}, Shard::whole({0})).empty());
  EXPECT_TRUE(runs_of({3, 0, 2}, Shard::whole({3, 0, 2})).empty());
  EXPECT_TRUE(runs_of({3, 2}, Shard{{1, 1}, {0, 1}}).empty());
}

TEST(Shard, PartsAreEqualAndInOrder) {
  const Shard part = Shard::part({2, 6, 5}, 1, 2, 3);
  EXPECT_EQ(part.offset, (Extents{0, 4, 0}));
  EXPECT_EQ(part.extent, (Extents{2, 2, 5}));
  EXPECT_EQ(part.elements(), 20);
}

TEST(Shard, PartsThatCannotBeEqualDifferByOne) {
  // 7 = 2 + 2 + 3
  const std::vector<std::int64_t> offsets = {0, 2, 4}, extents = {2, 2, 3};
  for (int index = 0; index < 3; ++index) {
    const Shard part = Shard::part({2, 7}, 1, index, 3);
    EXPECT_EQ(part.offset, (Extents{0, offsets[static_cast<std::size_t>(index)]}));
    EXPECT_EQ(part.extent, (Extents{2, extents[static_cast<std::size_t>(index)]}));
  }
  EXPECT_EQ(runs_of({2, 7}, Shard::part({2, 7}, 1, 2, 3)), (Runs{{4, 0, 3}, {11, 3, 3}}));
  EXPECT_EQ(Shard::part({5}, 0, 4, 5).offset, Extents{4}) << "one element each";
}

RC_GTEST_PROP(Shard, PartsFollowEachOtherAndAreAsEqualAsCanBe, ()) {
  const int parts = *rc::gen::inRange(1, 20);
  const auto size = *rc::gen::inRange<std::int64_t>(parts, 1000);
  std::int64_t next = 0;
  for (int index = 0; index < parts; ++index) {
    const Shard part = Shard::part({size}, 0, index, parts);
    RC_ASSERT(part.offset[0] == next);
    RC_ASSERT(part.extent[0] == size / parts || part.extent[0] == (size + parts - 1) / parts);
    next += part.extent[0];
  }
  RC_ASSERT(next == size);
}

TEST(Shard, PartsThatThereAreNotAreRefused) {
  expect_error([] { Shard::part({6, 4}, 1, 0, 5); }, ExitCode::internal, {"part 0 of 5", "axis 1"});
  expect_error([] { Shard::part({6, 4}, 2, 0, 1); }, ExitCode::internal, {"axis 2"});
  expect_error([] { Shard::part({6, 4}, 0, 3, 3); }, ExitCode::internal, {"part 3 of 3"});
  expect_error([] { Shard::part({6, 4}, 0, -1, 3); }, ExitCode::internal, {"part -1 of 3"});
  expect_error([] { Shard::part({6, 4}, 0, 0, 0); }, ExitCode::internal, {"part 0 of 0"});
}

/// Places in the flattened whole of a shard's elements, by walking through all of the whole.
Extents places(const Extents& shape, const Shard& shard) {
  std::int64_t size = 1;
  for (const std::int64_t extent : shape) size *= extent;
  Extents found;
  for (std::int64_t place = 0; place < size; ++place) {
    bool inside = true;
    std::int64_t rest = place;
    for (std::size_t axis = shape.size(); axis-- > 0; rest /= shape[axis]) {
      const std::int64_t at = rest % shape[axis] - shard.offset[axis];
      inside = inside && at >= 0 && at < shard.extent[axis];
    }
    if (inside) found.push_back(place);
  }
  return found;
}

RC_GTEST_PROP(ShardRuns, CoverTheShardOnceInOrderAndCannotBeFewer, ()) {
  const auto axes = *rc::gen::inRange<std::size_t>(1, 4);
  Extents shape;
  Shard shard;
  for (std::size_t axis = 0; axis < axes; ++axis) {
    shape.push_back(*rc::gen::inRange<std::int64_t>(1, 6));
    const bool whole = *rc::gen::arbitrary<bool>();
    shard.offset.push_back(whole ? 0 : *rc::gen::inRange<std::int64_t>(0, shape[axis]));
    shard.extent.push_back(
        whole ? shape[axis]
              : *rc::gen::inRange<std::int64_t>(0, shape[axis] - shard.offset[axis] + 1));
  }
  Extents covered;
  std::int64_t in_shard = 0, end = -1;
  for (const ShardRun& run : shard_runs(shape, shard)) {
    RC_ASSERT(run.count > 0);
    RC_ASSERT(run.in_shard == in_shard);
    RC_ASSERT(run.in_whole > end);  // a run that begins where the last one ended would be the same
    in_shard += run.count;
    end = run.in_whole + run.count;
    for (std::int64_t i = 0; i < run.count; ++i) covered.push_back(run.in_whole + i);
  }
  RC_ASSERT(covered == places(shape, shard));
}

RC_GTEST_PROP(ShardRuns, PartsOfAnAxisMakeTheWhole, ()) {
  Extents shape;
  for (int axis = 0; axis < 3; ++axis) shape.push_back(*rc::gen::inRange<std::int64_t>(1, 4));
  const auto axis = *rc::gen::inRange<std::size_t>(0, 3);
  const int parts = *rc::gen::inRange(1, 5);
  shape[axis] += parts - 1;
  Extents covered;
  for (int index = 0; index < parts; ++index) {
    for (const ShardRun& run : shard_runs(shape, Shard::part(shape, axis, index, parts))) {
      for (std::int64_t i = 0; i < run.count; ++i) covered.push_back(run.in_whole + i);
    }
  }
  std::sort(covered.begin(), covered.end());
  RC_ASSERT(covered == places(shape, Shard::whole(shape)));
}

}  // namespace
}  // namespace konclave
