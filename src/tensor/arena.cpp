#include "tensor/arena.hpp"

#include <algorithm>
#include <utility>

namespace konclave {

namespace {
constexpr std::size_t kAlignment = 64;
constexpr std::size_t kSmallestBlock = std::size_t{1} << 18;

/// With some room: what is needed varies from one time to the next.
std::size_t with_room(std::size_t bytes) { return bytes + bytes / 16; }
}  // namespace

std::string_view name_of(MemoryClass use) {
  constexpr std::array<std::string_view, kMemoryClasses> kNames = {
      "weights", "gradients", "optimizer", "activations", "buffers"};
  return kNames[static_cast<int>(use)];
}

void MemoryAccount::add(MemoryClass use, std::int64_t bytes) {
  const auto index = static_cast<std::size_t>(use);
  current_[index] += bytes;
  total_ += bytes;
  peak_[index] = std::max(peak_[index], current_[index]);
  peak_total_ = std::max(peak_total_, total_);
}

Arena::Arena(MemoryAccount& account, MemoryClass use, std::string label)
    : account_(account), use_(use), label_(std::move(label)) {}

Arena::~Arena() { release(0); }

void Arena::release(std::size_t kept) {
  for (; blocks_.size() > kept; blocks_.pop_back()) {
    account_.add(use_, -static_cast<std::int64_t>(blocks_.back().size()));
  }
}

AnyView Arena::make(DType type, std::int64_t rows) {
  return {type, take(static_cast<std::size_t>(rows) * size_of(type)), {rows, 1, 1}, 1};
}

AnyView Arena::make(DType type, std::int64_t rows, std::int64_t columns) {
  void* data = take(static_cast<std::size_t>(rows * columns) * size_of(type));
  return {type, data, {rows, columns, 1}, 2};
}

AnyView Arena::make(DType type, std::int64_t depth, std::int64_t rows, std::int64_t columns) {
  void* data = take(static_cast<std::size_t>(depth * rows * columns) * size_of(type));
  return {type, data, {depth, rows, columns}, 3};
}

void Arena::rewind(Mark mark) {
  block_ = mark.block;
  used_ = mark.used;
  total_ = mark.total;
  const std::size_t kept = total_ > 0 ? block_ + 1 : 0;
  if (blocks_.size() < kept + 2) return;
  release(kept);
  add_block(with_room(most_ - total_));
}

void Arena::add_block(std::size_t bytes) {
  // Left untouched: the threads that write first decide where pages are, and what is never needed
  // takes no memory of a host.
  blocks_.emplace_back(Kokkos::view_alloc(Kokkos::WithoutInitializing, label_), bytes);
  account_.add(use_, static_cast<std::int64_t>(bytes));
}

void* Arena::take(std::size_t bytes) {
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].size()) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size()) {
    add_block(std::max(bytes, kSmallestBlock));
    used_ = 0;
  }
  void* const data = blocks_[block_].data() + used_;
  used_ += bytes;
  total_ += bytes;
  most_ = std::max(most_, total_);
  return data;
}

}  // namespace konclave
