#include "run/tensor_collector.hpp"

#include "tensor/host_copy.hpp"

#include <cstring>
#include <sstream>
#include <utility>

namespace konclave {

namespace {

constexpr int kChannel = 0;

/// "index offsets extents" of each part that this rank hands out, for TensorCollector alone.
std::string describe_parts(const std::vector<TensorInfo>& tensors,
                           const std::map<std::string, TensorPart>& parts) {
  std::ostringstream text;
  for (std::size_t index = 0; index < tensors.size(); ++index) {
    const auto found = parts.find(tensors[index].name);
    if (found == parts.end() || !found->second.hands_out) continue;
    text << index;
    for (const auto& numbers : {found->second.shard.offset, found->second.shard.extent}) {
      for (const std::int64_t number : numbers) text << ' ' << number;
    }
    text << '\n';
  }
  return text.str();
}

void place(const TensorInfo& info, const Shard& shard, const std::vector<std::byte>& part,
           void* host) {
  const std::size_t size = size_of(info.type);
  for (const ShardRun& run : shard_runs(info.shape, shard)) {
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
  return {view, placement.shard,
          parameter.spec().routed ? groups.expert_dp->rank() == 0 : is_dense_owner};
}

TensorCollector::TensorCollector(const Communicator& world, ModelRunner& runner,
                                 std::vector<TensorInfo> tensors,
                                 std::map<std::string, TensorPart> parts)
    : runner_(runner),
      tensors_(std::move(tensors)),
      parts_(std::move(parts)),
      holders_(tensors_.size()) {
  const std::vector<std::string> texts = world.gather(describe_parts(tensors_, parts_), 0);
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    std::istringstream text(texts[rank]);
    for (std::size_t index = 0; text >> index;) {
      Shard shard = Shard::whole(tensors_.at(index).shape);
      for (auto* numbers : {&shard.offset, &shard.extent}) {
        for (std::int64_t& number : *numbers) text >> number;
      }
      holders_[index].push_back({static_cast<int>(rank), std::move(shard)});
    }
  }
  if (world.rank() == 0) check_complete();
}

void TensorCollector::check_complete() const {
  for (std::size_t index = 0; index < tensors_.size(); ++index) {
    std::int64_t elements = 0;
    for (const Holder& holder : holders_[index]) elements += holder.shard.elements();
    require(elements == Shard::whole(tensors_[index].shape).elements(),
            "the ranks hold " + std::to_string(elements) + " elements of " + tensors_[index].name +
                " " + tensors_[index].shape_text());
  }
}

void TensorCollector::collect(std::size_t index, void* host) {
  const ExecSpace& exec = runner_.exec();
  const Transport& world = *runner_.groups().world;
  const TensorInfo& info = tensors_[index];
  if (world.rank() > 0) {
    const auto found = parts_.find(info.name);
    if (found == parts_.end() || !found->second.hands_out) return;
    const AnyView& view = found->second.view;
    world.start_send(exec, view.reshape(view.size(), 1), 0, kChannel).wait(exec);
    return;
  }
  for (const Holder& holder : holders_[index]) {
    const ArenaScope scope(runner_.scratch());
    const std::int64_t elements = holder.shard.elements();
    AnyView part;
    if (holder.rank == 0) {
      part = parts_.at(info.name).view;
    } else {
      part = runner_.scratch().make(info.type, elements, 1);
      world.start_receive(exec, part, holder.rank, kChannel).wait(exec);
    }
    if (host == nullptr) continue;
    if (holders_[index].size() == 1) {
      copy_to_host(exec, part, host);
      continue;
    }
    std::vector<std::byte> bytes(part.bytes());
    copy_to_host(exec, part, bytes.data());
    place(info, holder.shard, bytes, host);
  }
}

}  // namespace konclave
