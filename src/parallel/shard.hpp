#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace konclave {

/// The part of a tensor that a rank holds: a box of the whole, on every axis the elements offset ..
/// offset + extent - 1.
struct Shard {
  std::vector<std::int64_t> offset, extent;

  static Shard whole(const std::vector<std::int64_t>& shape);
  /// The `index`-th of `parts` parts along `axis`, as equal as can be: elements index * n / parts
  /// on. Throws Error when the axis is shorter than `parts`.
  static Shard part(const std::vector<std::int64_t>& shape, std::size_t axis, int index, int parts);

  std::int64_t elements() const;
};

/// Elements that follow each other both in the flattened whole and in the flattened shard.
struct ShardRun {
  std::int64_t in_whole = 0, in_shard = 0, count = 0;
};

/// All of a shard of a tensor of `shape`, in ascending order, as few runs as there can be.
std::vector<ShardRun> shard_runs(const std::vector<std::int64_t>& shape, const Shard& shard);

/// Elements first .. first + count - 1 of a flattened shard: what one of several ranks that hold it
/// has the optimizer state of.
struct ShardRange {
  Shard shard;
  std::int64_t first = 0, count = 0;

  /// All of it.
  static ShardRange of(Shard shard);
};

/// All of a range, in ascending order; `in_shard` counts from the first element of the range.
std::vector<ShardRun> shard_runs(const std::vector<std::int64_t>& shape, const ShardRange& range);

}  // namespace konclave
