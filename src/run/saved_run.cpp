#include "run/saved_run.hpp"

#include "base/fault.hpp"
#include "base/text.hpp"
#include "checkpoints/format.hpp"
#include "checkpoints/history.hpp"
#include "checkpoints/writer.hpp"
#include "comm/agreed.hpp"
#include "ops/elementwise.hpp"
#include "tensor/host_copy.hpp"

namespace konclave {

namespace {

/// A tensor of the checkpoint, and what of it is on this rank.
struct SavedTensor {
  TensorInfo info;
  AnyView part;
  bool routed = false;
};

/// Optimizer state is flat; in a checkpoint it has the parameter's shape.
AnyView shaped(const AnyView& flat, const AnyView& like) {
  return {flat.type(), flat.data(), like.extents(), like.rank()};
}

/// Whether a parameter's values are only a rounding of its master weights.
bool has_master(const Optimizer::State& state) {
  return state.master.data() != state.parameter->value().data();
}

std::vector<SavedTensor> saved_tensors(const Optimizer& optimizer) {
  std::vector<SavedTensor> tensors;
  for (const Optimizer::State& entry : optimizer.states()) {
    const Parameter& parameter = *entry.parameter;
    const auto add = [&](const char* group, const AnyView& view) {
      tensors.push_back({{group + parameter.name(), view.type(), parameter.spec().shape},
                         shaped(view, parameter.value()),
                         parameter.spec().routed});
    };
    add(kModelGroup, parameter.value());
    if (has_master(entry)) add(kMasterGroup, entry.master);
    add(kExpAvgGroup, entry.first_moment);
    add(kExpAvgSqGroup, entry.second_moment);
  }
  return tensors;
}

/// Collective over `ep`: the experts of all its ranks, one after the other, in host memory of its
/// first rank.
void gather_experts(const ExecSpace& exec, Arena& scratch, const Transport& ep, const AnyView& part,
                    void* host) {
  const ArenaScope scope(scratch);
  const bool first = ep.rank() == 0;
  const auto ranks = static_cast<std::size_t>(ep.size());
  std::vector<std::int64_t> sent(ranks, 0), received(ranks, first ? part.extent(0) : 0);
  sent[0] = part.extent(0);
  const AnyView all = scratch.make(part.type(), first ? ep.size() * part.extent(0) : 0,
                                   part.extent(1), part.extent(2));
  ep.start_all_to_all(exec, part, sent, all, received).wait(exec);
  if (first && host != nullptr) copy_to_host(exec, all, host);
}

/// Brings a tensor to rank 0 of the world, which passes memory for it, or none to drop it.
/// Collective over the expert-parallel group of that rank.
void collect(ModelRunner& runner, const SavedTensor& tensor, void* host) {
  const Groups& groups = runner.groups();
  if (tensor.routed && groups.ep->size() > 1) {
    // Every copy of the experts is the same: that of rank 0's group is taken.
    if (groups.expert_dp->rank() > 0) return;
    gather_experts(runner.exec(), runner.scratch(), *groups.ep, tensor.part, host);
  } else if (host != nullptr) {
    copy_to_host(runner.exec(), tensor.part, host);
  }
}

void require_finite(ModelRunner& runner, const std::vector<SavedTensor>& tensors) {
  for (const SavedTensor& tensor : tensors) {
    require(ops::all_finite(runner.exec(), tensor.part),
            tensor.info.name + " has a NaN or an infinity; no checkpoint is made of it",
            ExitCode::numerics);
  }
}

nlohmann::json to_json(const Mapping& mapping) {
  return {{"ranks", mapping.ranks}, {"ep", mapping.parallel.ep}, {"order", mapping.parallel.order}};
}

/// "4 ranks with parallel.ep = 2 and parallel.order = ...". The order says nothing where the
/// experts of all ranks are one copy, or each rank has its own.
std::string describe_mapping(const nlohmann::json& mapping) {
  const int ranks = mapping.value("ranks", 1), ep = mapping.value("ep", 1);
  if (ranks == 1) return "1 rank";
  std::string text = std::to_string(ranks) + " ranks with parallel.ep = " + std::to_string(ep);
  if (1 < ep && ep < ranks) text += " and parallel.order = \"" + mapping.value("order", "") + "\"";
  return text;
}

void check_same_mapping(const Mapping& mapping, const Checkpoint& checkpoint) {
  const nlohmann::json& state = checkpoint.state();
  const std::string saved = describe_mapping(state.value("mapping", nlohmann::json::object()));
  const std::string wanted = describe_mapping(to_json(mapping));
  require(saved == wanted,
          checkpoint.folder().string() + " was saved by a run on " + saved +
              ", and this one is on " + wanted +
              ": going on under another mapping is not available in this version; start the run "
              "as before, or take its weights into a new run with checkpoint.load",
          ExitCode::resource);
}

/// A run that goes back would be resumed from its abandoned future the next time.
void check_nothing_later(const Checkpoint& chosen, const std::filesystem::path& checkpoints) {
  const auto all = list_checkpoints(checkpoints);
  if (all.empty()) return;
  const std::string newest = all.front().filename().string();
  require(parse_checkpoint_name(newest).value_or(0) <= chosen.step(),
          checkpoints.string() + " holds the later " + newest +
              ", and run.resume goes back to step " + std::to_string(chosen.step()) +
              "; give this run another run.name, or delete what is later",
          ExitCode::resource);
}

void check_same_model(const Deck& deck, const Checkpoint& checkpoint,
                      const std::function<void(const std::string&)>& report) {
  const Deck saved = read_deck_text(checkpoint.deck(), (checkpoint.folder() / kDeckFile).string());
  std::vector<std::string> refused;
  for (const DeckChange& change : changed_keys(saved, deck)) {
    const std::string text = change.key + ": " + change.before + " -> " + change.after;
    if (change.defines_model) {
      refused.push_back(text);
    } else {
      report("changed since the checkpoint: " + text);
    }
  }
  require(refused.empty(),
          "the run cannot be resumed from " + checkpoint.folder().string() +
              ": keys that define the model have changed (" + join(refused, "; ") +
              "); set them back, or give this run another run.name",
          ExitCode::deck);
}

}  // namespace

void save_run(const Communicator& world, const std::filesystem::path& checkpoints,
              const std::string& deck, const nlohmann::json& provenance, const RunState& state,
              const Mapping& mapping, ModelRunner& runner, const Optimizer& optimizer) {
  const std::vector<SavedTensor> tensors = saved_tensors(optimizer);
  together(world, [&] { require_finite(runner, tensors); });

  std::size_t collected = 0;
  const auto collect_next = [&](void* host) { collect(runner, tensors[collected++], host); };
  CheckpointContent content;
  content.step = state.step;
  content.deck = deck;
  content.provenance = provenance;
  content.state = {{"step", state.step},
                   {"samples", state.samples},
                   {"tokens", state.tokens},
                   {"nan_steps", state.nan_steps},
                   {"mapping", to_json(mapping)}};
  for (const SavedTensor& tensor : tensors) content.tensors.push_back({tensor.info, collect_next});
  std::optional<Error> error;
  try {
    if (world.rank() == 0) write_checkpoint(checkpoints, content);
  } catch (const Error& caught) {
    if (caught.exit_code() != ExitCode::io) throw;
    error = caught;
  }
  // The others, and rank 0 when it could not go on writing: nobody is left alone in an exchange.
  require(world.rank() < world.size() - 1 || !fault("save.last_rank_fails"), "a seeded failure",
          ExitCode::input);
  while (collected < tensors.size()) collect_next(nullptr);
  agree_on_error(world, error);
}

RunState load_run(const Checkpoint& checkpoint, ModelRunner& runner, Optimizer& optimizer) {
  const ExecSpace& exec = runner.exec();
  for (const Optimizer::State& entry : optimizer.states()) {
    const AnyView& value = entry.parameter->value();
    const auto read = [&](const char* group, const AnyView& view) {
      const Parameter& parameter = *entry.parameter;
      checkpoint.read(exec, group + parameter.name(), parameter.spec().shape, parameter.shard(),
                      shaped(view, value));
    };
    read(kModelGroup, value);
    if (has_master(entry)) read(kMasterGroup, entry.master);
    read(kExpAvgGroup, entry.first_moment);
    read(kExpAvgSqGroup, entry.second_moment);
  }
  runner.weights_changed();
  const nlohmann::json& state = checkpoint.state();
  const auto number = [&](const char* key) {
    require(state.contains(key) && state[key].is_number_integer(),
            (checkpoint.folder() / kStateFile).string() + " has no number '" + key + "'",
            ExitCode::input);
    return state[key].get<std::int64_t>();
  };
  return {number("step"), number("samples"), number("tokens"), state.value("nan_steps", 0)};
}

std::optional<Checkpoint> find_resume(const Deck& deck, const Mapping& mapping,
                                      const std::filesystem::path& checkpoints,
                                      const std::function<void(const std::string&)>& report) {
  std::optional<Checkpoint> found;
  if (deck.run.resume == "never") {
    require(list_checkpoints(checkpoints).empty(),
            checkpoints.string() +
                " holds checkpoints of an earlier run, and run.resume is \"never\"; delete the "
                "folder, or give this run another run.name",
            ExitCode::resource);
  } else if (deck.run.resume == "auto") {
    found = newest_good(checkpoints, report);
  } else {
    found = Checkpoint::open(deck.run.resume);
    found->verify();
    check_nothing_later(*found, checkpoints);
  }
  if (found) {
    check_same_mapping(mapping, *found);
    check_same_model(deck, *found, report);
  }
  return found;
}

}  // namespace konclave
