#include "parallel/schedule.hpp"

#include "base/error.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

namespace konclave {
namespace {

using Kind = PipelineWork::Kind;

int group_of(const PipelineShape& shape) { return shape.group == 0 ? shape.stages : shape.group; }

/// The key that set the size of a group.
std::string group_key(const PipelineShape& shape) {
  return fmt::format("{} = {}", shape.group == 0 ? "parallel.pp" : "parallel.vpp_group_size",
                     group_of(shape));
}

/// Forward of all chunks: a group passes a chunk before the stage turns to the next one. Every
/// stage keeps this order, so a stage receives in the order in which its neighbour sends.
std::vector<PipelineWork> forward_order(const PipelineShape& shape) {
  const int group = group_of(shape);
  std::vector<PipelineWork> order;
  for (int first = 0; first < shape.micro_batches; first += group) {
    const int size = std::min(group, shape.micro_batches - first);
    for (int chunk = 0; chunk < shape.chunks; ++chunk) {
      for (int i = 0; i < size; ++i) order.push_back({Kind::forward, first + i, chunk});
    }
  }
  return order;
}

/// Pieces of forward that a stage does before its first backward.
std::size_t warm_up(const PipelineShape& shape, int stage, std::size_t pieces) {
  const std::int64_t behind = shape.stages - 1 - stage;
  const std::int64_t wanted =
      shape.chunks == 1 ? behind : 2 * behind + (shape.chunks - std::int64_t{1}) * group_of(shape);
  return std::min(static_cast<std::size_t>(wanted), pieces);
}

/// Whether groups of this size keep every stage busy until its next chunk: the last group, too,
/// must not be smaller than the number of stages.
bool suits(int stages, int group, int micro_batches) {
  const int last = micro_batches % group;
  return stages <= group && group <= micro_batches && (last == 0 || last >= stages);
}

/// "4 or 8", the nearest numbers of micro-batches that do, where one group is there at least.
std::string micro_batches_that_do(const PipelineShape& shape) {
  const int group = group_of(shape);
  int below = shape.micro_batches, above = shape.micro_batches;
  while (!suits(shape.stages, group, below)) --below;
  while (!suits(shape.stages, group, above)) ++above;
  return fmt::format("{} or {}", below, above);
}

/// A change of one key that does: the smallest group holds the fewest activations.
std::string key_that_does(const PipelineShape& shape) {
  for (int group = shape.stages; group <= shape.micro_batches; ++group) {
    if (suits(shape.stages, group, shape.micro_batches)) {
      return fmt::format("parallel.vpp_group_size = {}", group);
    }
  }
  return "parallel.vpp = 1";
}

std::string chunks_fault(const PipelineShape& shape) {
  const int group = group_of(shape), last = shape.micro_batches % group;
  if (shape.stages == 1) {
    return fmt::format(
        "parallel.vpp = {} needs more than one stage, but parallel.pp = 1; parallel.vpp = 1 or "
        "parallel.pp = 2 would do",
        shape.chunks);
  }
  if (group < shape.stages) {
    return fmt::format(
        "parallel.vpp_group_size = {} is less than parallel.pp = {}; {} would do, or 0, which "
        "takes parallel.pp",
        group, shape.stages, shape.stages);
  }
  if (group > shape.micro_batches) {
    return fmt::format(
        "parallel.vpp = {} needs at least {} micro-batches per rank; this run has {}, and {} would "
        "do, and so would {}",
        shape.chunks, group_key(shape), shape.micro_batches, group, key_that_does(shape));
  }
  if (suits(shape.stages, group, shape.micro_batches)) return "";
  return fmt::format(
      "parallel.vpp = {} takes {} micro-batches per rank in groups of {}, and the last {} of them "
      "are too few for parallel.pp = {}; {} would do, and so would {}",
      shape.chunks, shape.micro_batches, group_key(shape), last, shape.stages,
      micro_batches_that_do(shape), key_that_does(shape));
}

}  // namespace

std::string schedule_fault(const PipelineShape& shape) {
  if (shape.stages < 1 || shape.chunks < 1 || shape.micro_batches < 1 || shape.group < 0) {
    return fmt::format(
        "parallel.pp = {}, parallel.vpp = {} and {} micro-batches per rank must be at least 1, and "
        "parallel.vpp_group_size = {} at least 0",
        shape.stages, shape.chunks, shape.micro_batches, shape.group);
  }
  return shape.chunks == 1 ? "" : chunks_fault(shape);
}

std::vector<PipelineWork> pipeline_schedule(const PipelineShape& shape, int stage) {
  const std::string fault = schedule_fault(shape);
  require(fault.empty(), fault);
  require(0 <= stage && stage < shape.stages,
          fmt::format("no stage {} in a pipeline of {}", stage, shape.stages));
  const std::vector<PipelineWork> forward = forward_order(shape);
  const std::size_t warm = warm_up(shape, stage, forward.size());

  std::vector<PipelineWork> schedule;
  schedule.reserve(2 * forward.size());
  for (std::size_t i = 0; i < forward.size() + warm; ++i) {
    if (i < forward.size()) schedule.push_back(forward[i]);
    if (i < warm) continue;
    const PipelineWork& mirror = forward[i - warm];
    schedule.push_back({Kind::backward, mirror.micro_batch, shape.chunks - 1 - mirror.chunk});
  }
  return schedule;
}

std::vector<int> slots_in_flight(const std::vector<PipelineWork>& schedule) {
  std::vector<int> held;
  held.reserve(schedule.size());
  int now = 0;
  for (const PipelineWork& work : schedule) {
    now += work.kind == Kind::forward ? 1 : -1;
    held.push_back(now);
  }
  return held;
}

}  // namespace konclave
