#include "run/tensor_collector.hpp"

#include "tensor/host_copy.hpp"

#include <cstring>
#include <sstream>
#include <utility>

namespace konclave {

namespace {

constexpr int kChannel = 0;

/// Calls use(part) for what this rank hands out of a tensor, always in the same order.
template <typename Use> void for_parts(const TensorParts& parts, const std::string& name, Use use) {
  const auto [first, last] = parts.equal_range(name);
  for (auto part = first; part != last; ++part) {
    if (part->second.hands_out) use(part->second);
  }
}

/// "index first count offsets extents" of each part that this rank hands out, for TensorCollector
/// alone.
std::string describe_parts(const std::vector<TensorInfo>& tensors, const TensorParts& parts) {
  std::ostringstream text;
  for (std::size_t index = 0; index < tensors.size(); ++index) {
    for_parts(parts, tensors[index].name, [&](const TensorPart& part) {
      text << index << ' ' << part.range.first << ' ' << part.range.count;
      for (const auto& numbers : {part.range.shard.offset, part.range.shard.extent}) {
        for (const std::int64_t number : numbers) text << ' ' << number;
      }
      text << '\n';
    });
  }
  return text.str();
}

void place(const TensorInfo& info, const ShardRange& range, const std::vector<std::byte>& part,
           void* host) {
  const std::size_t size = size_of(info.type);
  for (const ShardRun& run : shard_runs(info.shape, range)) {
    std::memcpy(static_cast<std::byte*>(host) + static_cast<std::size_t>(run.in_whole) * size,
                part.data() + static_cast<std::size_t>(run.in_shard) * size,
                static_cast<std::size_t>(run.count) * size);
  }
}

}  // namespace

TensorPart part_of(const Parameter& parameter, const AnyView& view, const Groups& groups) {
  const Placement& placement = parameter.placement();
  const bool is_dense_owner = groups.dp_cp->rank() == 0 && !placement.copy &&
                              (!placement.on_all_tp || groups.tp->rank() == 0);
  return {view, ShardRange::of(placement.shard),
          parameter.spec().routed ? groups.expert_dp->rank() == 0 : is_dense_owner};
}

TensorPart part_of(const Optimizer::State& state, const AnyView& view, const Groups& groups) {
  const Parameter& parameter = *state.piece.parameter;
  const Transport& replicas = parameter.spec().routed ? *groups.expert_dp : *groups.dp_cp;
  return {view,
          {parameter.shard(), state.piece.first, state.piece.count},
          state.speaks && (state.owned || replicas.rank() == 0)};
}

TensorCollector::TensorCollector(const Communicator& world, ModelRunner& runner,
                                 std::vector<TensorInfo> tensors, TensorParts parts)
    : runner_(runner),
      tensors_(std::move(tensors)),
      parts_(std::move(parts)),
      holders_(tensors_.size()) {
  const std::vector<std::string> texts = world.gather(describe_parts(tensors_, parts_), 0);
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    std::istringstream text(texts[rank]);
    for (std::size_t index = 0; text >> index;) {
      ShardRange range = ShardRange::of(Shard::whole(tensors_.at(index).shape));
      text >> range.first >> range.count;
      for (auto* numbers : {&range.shard.offset, &range.shard.extent}) {
        for (std::int64_t& number : *numbers) text >> number;
      }
      holders_[index].push_back({static_cast<int>(rank), std::move(range)});
    }
  }
  if (world.rank() == 0) check_complete();
}

void TensorCollector::check_complete() const {
  for (std::size_t index = 0; index < tensors_.size(); ++index) {
    std::int64_t elements = 0;
    for (const Holder& holder : holders_[index]) elements += holder.range.count;
    require(elements == Shard::whole(tensors_[index].shape).elements(),
            "the ranks hold " + std::to_string(elements) + " elements of " + tensors_[index].name +
                " " + tensors_[index].shape_text());
  }
}

void TensorCollector::collect(std::size_t index, void* host) {
  const ExecSpace& exec = runner_.exec();
  const Transport& world = *runner_.groups().world;
  const TensorInfo& info = tensors_[index];
  std::vector<AnyView> mine;
  for_parts(parts_, info.name, [&](const TensorPart& part) { mine.push_back(part.view); });
  if (world.rank() > 0) {
    for (const AnyView& part : mine) {
      world.start_send(exec, part.reshape(part.size(), 1), 0, kChannel).wait(exec);
    }
    return;
  }
  auto next_of_mine = mine.begin();
  for (const Holder& holder : holders_[index]) {
    const ArenaScope scope(runner_.scratch());
    AnyView part;
    if (holder.rank == 0) {
      part = *next_of_mine++;
    } else {
      part = runner_.scratch().make(info.type, holder.range.count, 1);
      world.start_receive(exec, part, holder.rank, kChannel).wait(exec);
    }
    if (host == nullptr) continue;
    if (holders_[index].size() == 1) {
      copy_to_host(exec, part, host);
      continue;
    }
    std::vector<std::byte> bytes(part.bytes());
    copy_to_host(exec, part, bytes.data());
    place(info, holder.range, bytes, host);
  }
}

}  // namespace konclave
