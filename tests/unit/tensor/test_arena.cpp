#include "tensor/arena.hpp"

#include <gtest/gtest.h>

#include <cstdint>

namespace konclave {
namespace {

constexpr std::int64_t kMebi = std::int64_t{1} << 20;

/// A mebibyte of doubles, which gets a block of its own.
AnyView make_mebi(Arena& arena) { return arena.make(DType::fp64, kMebi / 8); }

TEST(Arena, MakesViewsOfTheShapeAskedFor) {
  MemoryAccount account;
  Arena arena(account, MemoryClass::weights, "test");
  EXPECT_EQ(arena.make(DType::bf16, 3).describe(), "bf16 (3)");
  EXPECT_EQ(arena.make(DType::fp32, 3, 5).describe(), "fp32 (3, 5)");
  EXPECT_EQ(arena.make(DType::fp64, 2, 3, 5).describe(), "fp64 (2, 3, 5)");
  EXPECT_EQ(arena.make1<int>(7).extent_int(0), 7);
  EXPECT_EQ(arena.make(DType::fp32, 0, 5).size(), 0);
}

TEST(Arena, AlignsToCacheLinesAndNeverOverlaps) {
  MemoryAccount account;
  Arena arena(account, MemoryClass::weights, "test");
  std::uintptr_t end = 0;
  for (const std::int64_t size : {1, 3, 31, 32, 33, 100}) {
    const AnyView view = arena.make(DType::bf16, size);
    const auto begin = reinterpret_cast<std::uintptr_t>(view.data());
    EXPECT_EQ(begin % 64, 0U) << size;
    EXPECT_GE(begin, end) << size;
    end = begin + view.bytes();
  }
}

TEST(Arena, RewindGivesTheSameMemoryAgainAndAllocatesNothing) {
  MemoryAccount account;
  Arena arena(account, MemoryClass::activations, "test");
  const void* const kept = arena.make(DType::fp32, 10).data();
  const Arena::Mark mark = arena.mark();
  const void* const first = arena.make(DType::fp32, 20).data();
  const void* const second = make_mebi(arena).data();  // in a block of its own
  const std::int64_t bytes = account.current(MemoryClass::activations);

  arena.rewind(mark);

  EXPECT_EQ(arena.make(DType::fp32, 20).data(), first);
  EXPECT_EQ(make_mebi(arena).data(), second);
  EXPECT_NE(first, kept);
  EXPECT_EQ(account.current(MemoryClass::activations), bytes);
}

TEST(ArenaScope, FreesWhatWasMadeInIt) {
  MemoryAccount account;
  Arena arena(account, MemoryClass::activations, "test");
  const void* inside = nullptr;
  {
    const ArenaScope scope(arena);
    inside = arena.make(DType::fp32, 20).data();
  }
  EXPECT_EQ(arena.make(DType::fp32, 20).data(), inside);
}

TEST(Arena, ABlockThatIsTooSmallIsSkipped) {
  MemoryAccount account;
  Arena arena(account, MemoryClass::activations, "test");
  const void* const first = arena.make(DType::fp32, 1).data();
  const Arena::Mark start = arena.mark();
  make_mebi(arena);
  arena.rewind(start);

  const AnyView large = arena.make(DType::fp64, kMebi / 4);  // two mebibytes

  EXPECT_EQ(large.bytes(), static_cast<std::size_t>(2 * kMebi));
  arena.rewind(start);
  EXPECT_EQ(static_cast<const float*>(arena.make(DType::fp32, 1).data()) -
                static_cast<const float*>(first),
            16)
      << "behind what is still in use";
}

TEST(Arena, ARequestThatDoesNotFitAddsNoMoreThanItself) {
  MemoryAccount account;
  Arena arena(account, MemoryClass::activations, "test");
  for (int i = 0; i < 40; ++i) make_mebi(arena);
  EXPECT_EQ(account.current(MemoryClass::activations), 40 * kMebi);
  for (int i = 0; i < 100; ++i) arena.make(DType::fp32, 512);  // 200 KiB of small ones together
  EXPECT_EQ(account.current(MemoryClass::activations), 40 * kMebi + kMebi / 4);

  arena.rewind({});
  for (int i = 0; i < 44; ++i) make_mebi(arena);
  const std::int64_t once = 40 * kMebi + 100 * 2048;
  EXPECT_LE(account.peak(MemoryClass::activations), once * 17 / 16 + 2 * kMebi);
}

TEST(Arena, BlocksBecomeOneOfTheSizeThatWasNeeded) {
  MemoryAccount account;
  Arena arena(account, MemoryClass::activations, "test");
  const auto make = [&] {
    for (const int kibis : {300, 200, 300, 200}) arena.make(DType::fp32, kibis * 256);
  };
  make();
  EXPECT_EQ(account.current(MemoryClass::activations), 2 * (300 + 256) * 1024) << "with gaps";
  arena.rewind({});
  EXPECT_EQ(account.current(MemoryClass::activations), 1000 * 1024 * 17 / 16);
  make();
  EXPECT_EQ(account.current(MemoryClass::activations), 1000 * 1024 * 17 / 16) << "nothing is added";
}

TEST(Arena, BlocksBehindWhatIsInUseBecomeOneToo) {
  MemoryAccount account;
  Arena arena(account, MemoryClass::buffers, "test");
  auto* const kept = static_cast<double*>(make_mebi(arena).data());
  kept[0] = 1.5;
  for (int mebis = 1; mebis <= 8; ++mebis) {
    const ArenaScope scope(arena);
    make_mebi(arena);
    arena.make(DType::fp64, mebis * kMebi / 8);
  }
  EXPECT_EQ(kept[0], 1.5);
  EXPECT_EQ(account.current(MemoryClass::buffers), kMebi + 9 * kMebi * 17 / 16);
  EXPECT_LE(account.peak(MemoryClass::buffers), kMebi + 9 * kMebi * 2);
}

TEST(MemoryAccount, KeepsPeaksByClassAndOfTheSum) {
  MemoryAccount account;
  {
    Arena weights(account, MemoryClass::weights, "weights");
    make_mebi(weights);
  }
  EXPECT_EQ(account.current(MemoryClass::weights), 0) << "the arena is gone";
  {
    Arena buffers(account, MemoryClass::buffers, "buffers");
    make_mebi(buffers);
    make_mebi(buffers);
    EXPECT_EQ(account.current(MemoryClass::buffers), 2 * kMebi);
  }
  EXPECT_EQ(account.peak(MemoryClass::weights), kMebi);
  EXPECT_EQ(account.peak(MemoryClass::buffers), 2 * kMebi);
  EXPECT_EQ(account.peak(MemoryClass::optimizer), 0);
  EXPECT_EQ(account.peak_total(), 2 * kMebi) << "the two were never there together";
}

TEST(MemoryClass, HasNames) {
  EXPECT_EQ(name_of(MemoryClass::weights), "weights");
  EXPECT_EQ(name_of(MemoryClass::gradients), "gradients");
  EXPECT_EQ(name_of(MemoryClass::optimizer), "optimizer");
  EXPECT_EQ(name_of(MemoryClass::activations), "activations");
  EXPECT_EQ(name_of(MemoryClass::buffers), "buffers");
}

}  // namespace
}  // namespace konclave
