#include "run/routing_replay.hpp"

#include "comm/agreed.hpp"
#include "tensor/host_copy.hpp"

#include <fmt/format.h>

#include <cstring>

namespace konclave {

namespace {

constexpr const char* kFileName = "routing_choices.h5";
/// What rank 0 keeps before it writes.
constexpr std::int64_t kMostPending = std::int64_t{8} << 20;

ChoicesShape shape_of(const ModelDefinition& definition) {
  return {definition.model.sequence_length, definition.num_moe_layers(), definition.moe.top_k,
          definition.moe.num_experts};
}

template <typename X> void append(std::string& text, X value) {
  text.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename X> X take(const char*& at) {
  X value;
  std::memcpy(&value, at, sizeof value);
  at += sizeof value;
  return value;
}

/// The experts that this rank's routers noted in a layer: of each token its place in the global
/// batch (uint32) and K numbers (uint16). A token that another rank has is not there.
std::string pack(const std::vector<int>& noted, const ChoicesShape& shape, std::int64_t layer,
                 std::int64_t first_place) {
  const std::int64_t per_token = shape.layers * shape.top_k;
  const auto tokens = static_cast<std::int64_t>(noted.size()) / per_token;
  std::string text;
  for (std::int64_t token = 0; token < tokens; ++token) {
    const int* const experts = noted.data() + token * per_token + layer * shape.top_k;
    if (experts[0] < 0) continue;
    append(text, static_cast<std::uint32_t>(first_place + token));
    for (std::int64_t k = 0; k < shape.top_k; ++k) {
      append(text, static_cast<std::uint16_t>(experts[k]));
    }
  }
  return text;
}

}  // namespace

RoutingReplay::RoutingReplay(const Communicator& world, const Deck& deck, MemoryAccount& account,
                             const std::filesystem::path& folder)
    : world_(world),
      batch_(deck.batch),
      steps_(deck.run.steps),
      records_(deck.definition.moe.records()),
      path_(records_ ? folder / kFileName : std::filesystem::path(deck.definition.moe.replay)),
      shape_(shape_of(deck.definition)),
      memory_(account, MemoryClass::buffers, "konclave::expert_choices") {
  if (records_ && world.rank() == 0) file_.emplace(path_, shape_);
}

void RoutingReplay::open(std::int64_t samples) {
  samples_ = samples;
  if (records_) {
    on_root(world_, [&] { file_->open(samples); });
    return;
  }
  together(world_, [&] {
    const std::int64_t found = count_samples(path_, shape_), wanted = steps_ * batch_.global_size;
    require(found >= wanted,
            fmt::format("moe.replay: {} has the routing of {} sequences, and run.steps = {} with "
                        "batch.global_size = {} need {}; run.steps = {} would do",
                        path_.string(), found, steps_, batch_.global_size, wanted,
                        found / batch_.global_size),
            ExitCode::deck);
  });
}

ExpertChoices RoutingReplay::begin_step(const ExecSpace& exec,
                                        const std::vector<HostMicroBatch>& batches) {
  std::int64_t tokens = 0;
  for (const HostMicroBatch& batch : batches) {
    tokens += static_cast<std::int64_t>(batch.tokens.size());
  }
  const std::int64_t first = batches.front().first_sequence, rows = tokens * shape_.layers;
  memory_.rewind({});
  const View1<int> experts = memory_.make1<int>(rows * shape_.top_k);
  choices_.use = records_ ? ExpertChoices::Use::record : ExpertChoices::Use::replay;
  choices_.experts = View2<int>(experts.data(), static_cast<std::size_t>(rows),
                                static_cast<std::size_t>(shape_.top_k));
  choices_.first_token = first * shape_.sequence_length;
  choices_.layers = static_cast<int>(shape_.layers);
  if (records_) {
    Kokkos::deep_copy(exec, experts, -1);
  } else {
    const std::vector<std::uint16_t> given = together(world_, [&] {
      return read_choices(path_, shape_, first, tokens / shape_.sequence_length);
    });
    to_device(exec, std::vector<int>(given.begin(), given.end()), experts);
  }
  return choices_;
}

void RoutingReplay::add(std::vector<std::uint16_t>& all, const std::vector<std::string>& parts,
                        int layer) const {
  const auto top_k = static_cast<std::size_t>(shape_.top_k);
  const auto layers = static_cast<std::size_t>(shape_.layers);
  std::size_t tokens = 0;
  for (const std::string& part : parts) {
    const char* at = part.data();
    for (; at < part.data() + part.size(); ++tokens) {
      const auto place = take<std::uint32_t>(at);
      std::uint16_t* const to =
          all.data() + (place * layers + static_cast<std::size_t>(layer)) * top_k;
      for (std::size_t k = 0; k < top_k; ++k) to[k] = take<std::uint16_t>(at);
    }
  }
  require(tokens * layers * top_k == all.size(),
          fmt::format("the ranks noted the experts of {} tokens in MoE layer {}, and the global "
                      "batch has {}",
                      tokens, layer, all.size() / (layers * top_k)));
}

void RoutingReplay::end_step(const ExecSpace& exec) {
  const std::int64_t before = samples_;
  samples_ += batch_.global_size;
  if (!records_) return;
  const std::vector<int> noted =
      to_host(exec, View1<const int>(choices_.experts.data(), choices_.experts.size()));
  const std::int64_t first_place = choices_.first_token - before * shape_.sequence_length;
  std::vector<std::uint16_t> all(
      world_.rank() == 0 ? static_cast<std::size_t>(batch_.global_size * shape_.per_sample()) : 0);
  for (int layer = 0; layer < choices_.layers; ++layer) {
    const std::vector<std::string> parts =
        world_.gather(pack(noted, shape_, layer, first_place), /*root=*/0);
    if (world_.rank() == 0) add(all, parts, layer);
  }
  on_root(world_, [&] {
    file_->add(all);
    if (file_->pending_bytes() > kMostPending) file_->flush();
  });
}

void RoutingReplay::flush() {
  if (!records_) return;
  on_root(world_, [&] { file_->flush(); });
}

std::string RoutingReplay::describe() const {
  return records_ ? "routing: the experts of every token are recorded in " + path_.string()
                  : "routing: the experts of every token are those of " + path_.string();
}

}  // namespace konclave
