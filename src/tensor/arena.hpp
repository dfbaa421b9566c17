#pragma once

#include "tensor/view.hpp"

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace konclave {

/// What a piece of memory is for; a run reports its use by these classes.
enum class MemoryClass { weights, gradients, optimizer, activations, buffers };
inline constexpr int kMemoryClasses = 5;
std::string_view name_of(MemoryClass use);

/// Bytes in use and their peak, by class. Arenas report to the account that they were given.
class MemoryAccount {
 public:
  void add(MemoryClass use, std::int64_t bytes);
  std::int64_t current(MemoryClass use) const { return current_[static_cast<int>(use)]; }
  std::int64_t peak(MemoryClass use) const { return peak_[static_cast<int>(use)]; }
  /// Peak of the sum, which may be less than the sum of the peaks.
  std::int64_t peak_total() const { return peak_total_; }

 private:
  std::array<std::int64_t, kMemoryClasses> current_{}, peak_{};
  std::int64_t total_ = 0, peak_total_ = 0;
};

/// Hands out views from a few large allocations and takes them all back at once: a slot for one
/// micro-batch in flight, the parameters of a model, the scratch memory of a step. Memory stays
/// with the arena until it is destroyed, so a second micro-batch allocates nothing. A request that
/// doesn't fit adds a block of its size; small ones share a block. Once two or more are taken back,
/// one block of the size that was needed replaces them: sizes that vary, as those of routed rows
/// do, leave no gaps behind, and an arena holds little more than was ever in use at a time.
class Arena {
 public:
  /// A place in the arena; rewinding to it frees what was made since.
  struct Mark {
    std::size_t block = 0, used = 0, total = 0;
  };

  Arena(MemoryAccount& account, MemoryClass use, std::string label);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  /// Uninitialised; aligned to 64 bytes. Extents may be 0.
  AnyView make(DType type, std::int64_t rows);
  AnyView make(DType type, std::int64_t rows, std::int64_t columns);
  AnyView make(DType type, std::int64_t depth, std::int64_t rows, std::int64_t columns);
  template <typename X> View1<X> make1(std::int64_t size) {
    const auto count = static_cast<std::size_t>(size);
    return View1<X>(static_cast<X*>(take(count * sizeof(X))), count);
  }

  Mark mark() const { return {block_, used_, total_}; }
  void rewind(Mark mark);

 private:
  using Block = Kokkos::View<char*, MemSpace>;

  void* take(std::size_t bytes);
  void add_block(std::size_t bytes);
  /// Frees all blocks but the first `kept`.
  void release(std::size_t kept);

  MemoryAccount& account_;
  MemoryClass use_;
  std::string label_;
  std::vector<Block> blocks_;
  std::size_t block_ = 0, used_ = 0;  ///< place of the next view
  std::size_t total_ = 0, most_ = 0;  ///< bytes handed out, now and at most
};

/// Frees what was made in an arena since this object was created.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.rewind(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace konclave
