#include "run/saved_run.hpp"

#include "base/text.hpp"
#include "checkpoints/format.hpp"
#include "checkpoints/history.hpp"
#include "checkpoints/writer.hpp"
#include "tensor/host_copy.hpp"

namespace konclave {

namespace {

TensorSource source(const ExecSpace& exec, const std::string& group, const Parameter& parameter,
                    const AnyView& view) {
  return {{group + parameter.name(), view.type(), parameter.spec().shape},
          [exec, view](void* host) { copy_to_host(exec, view, host); }};
}

/// Optimizer state is flat; in a checkpoint it has the parameter's shape.
AnyView shaped(const AnyView& flat, const AnyView& like) {
  return {flat.type(), flat.data(), like.extents(), like.rank()};
}

/// Whether a parameter's values are only a rounding of its master weights.
bool has_master(const Optimizer::State& state) {
  return state.master.data() != state.parameter->value().data();
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

void save_run(const std::filesystem::path& checkpoints, const std::string& deck,
              const nlohmann::json& provenance, const RunState& state, ModelRunner& runner,
              const Optimizer& optimizer) {
  CheckpointContent content;
  content.step = state.step;
  content.deck = deck;
  content.provenance = provenance;
  content.state = {{"step", state.step}, {"samples", state.samples}, {"tokens", state.tokens}};
  const ExecSpace& exec = runner.exec();
  for (const Optimizer::State& entry : optimizer.states()) {
    const Parameter& parameter = *entry.parameter;
    content.tensors.push_back(source(exec, kModelGroup, parameter, parameter.value()));
    if (has_master(entry)) {
      content.tensors.push_back(source(exec, kMasterGroup, parameter, entry.master));
    }
    content.tensors.push_back(source(exec, kExpAvgGroup, parameter, entry.first_moment));
    content.tensors.push_back(source(exec, kExpAvgSqGroup, parameter, entry.second_moment));
  }
  write_checkpoint(checkpoints, content);
}

RunState load_run(const Checkpoint& checkpoint, ModelRunner& runner, Optimizer& optimizer) {
  const ExecSpace& exec = runner.exec();
  for (const Optimizer::State& entry : optimizer.states()) {
    const AnyView& value = entry.parameter->value();
    const auto read = [&](const char* group, const AnyView& view) {
      checkpoint.read(exec, group + entry.parameter->name(), shaped(view, value));
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
  return {number("step"), number("samples"), number("tokens")};
}

std::optional<Checkpoint> find_resume(const Deck& deck, const std::filesystem::path& checkpoints,
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
  if (found) check_same_model(deck, *found, report);
  return found;
}

}  // namespace konclave
