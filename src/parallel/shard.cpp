#include "parallel/shard.hpp"

#include "base/error.hpp"

#include <algorithm>
#include <string>
#include <utility>

namespace konclave {

namespace {

std::int64_t product(const std::vector<std::int64_t>& extents, std::size_t first) {
  std::int64_t result = 1;
  for (std::size_t axis = first; axis < extents.size(); ++axis) result *= extents[axis];
  return result;
}

}  // namespace

Shard Shard::whole(const std::vector<std::int64_t>& shape) {
  return {std::vector<std::int64_t>(shape.size(), 0), shape};
}

Shard Shard::part(const std::vector<std::int64_t>& shape, std::size_t axis, int index, int parts) {
  require(axis < shape.size() && parts > 0 && index >= 0 && index < parts && shape[axis] >= parts,
          "no part " + std::to_string(index) + " of " + std::to_string(parts) + " along axis " +
              std::to_string(axis));
  Shard shard = whole(shape);
  shard.offset[axis] = index * shape[axis] / parts;
  shard.extent[axis] = (index + 1) * shape[axis] / parts - shard.offset[axis];
  return shard;
}

std::int64_t Shard::elements() const { return product(extent, 0); }

std::vector<ShardRun> shard_runs(const std::vector<std::int64_t>& shape, const Shard& shard) {
  if (shard.elements() == 0) return {};
  // The axes behind `cut` are whole, so that a run takes all of them and what the shard has of the
  // cut one; a step through the axes before it leads from run to run.
  std::size_t cut = shape.size();
  while (cut > 0 && shard.extent[cut - 1] == shape[cut - 1]) --cut;
  if (cut > 0) --cut;
  const std::int64_t count = product(shard.extent, cut);
  std::vector<std::int64_t> at(cut, 0);
  std::vector<ShardRun> runs;
  for (std::int64_t local = 0; local < shard.elements(); local += count) {
    std::int64_t whole = 0;
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
      whole = whole * shape[axis] + shard.offset[axis] + (axis < cut ? at[axis] : 0);
    }
    runs.push_back({whole, local, count});
    for (std::size_t axis = cut; axis-- > 0;) {
      if (++at[axis] < shard.extent[axis]) break;
      at[axis] = 0;
    }
  }
  return runs;
}

ShardRange ShardRange::of(Shard shard) {
  const std::int64_t count = shard.elements();
  return {std::move(shard), 0, count};
}

std::vector<ShardRun> shard_runs(const std::vector<std::int64_t>& shape, const ShardRange& range) {
  const std::int64_t last = range.first + range.count;
  require(range.first >= 0 && range.count >= 0 && last <= range.shard.elements(),
          "elements outside of a shard");
  std::vector<ShardRun> runs;
  for (const ShardRun& run : shard_runs(shape, range.shard)) {
    const std::int64_t from = std::max(run.in_shard, range.first);
    const std::int64_t to = std::min(run.in_shard + run.count, last);
    if (from >= to) continue;
    runs.push_back({run.in_whole + from - run.in_shard, from - range.first, to - from});
  }
  return runs;
}

}  // namespace konclave
