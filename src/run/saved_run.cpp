#include "run/saved_run.hpp"

#include "base/fault.hpp"
#include "base/text.hpp"
#include "checkpoints/format.hpp"
#include "checkpoints/history.hpp"
#include "checkpoints/writer.hpp"
#include "comm/agreed.hpp"
#include "ops/elementwise.hpp"
#include "run/tensor_collector.hpp"

namespace konclave {

namespace {

/// Of what routers keep from step to step, what this model needs.
std::vector<std::pair<TensorInfo, AnyView>> routing_tensors(ModelRunner& runner) {
  const ModelDefinition& definition = runner.model().definition();
  const std::vector<std::int64_t> shape = {definition.num_moe_layers(), definition.moe.num_experts};
  const RoutingMemory& memory = runner.routing_memory();
  std::vector<std::pair<TensorInfo, AnyView>> tensors;
  if (definition.num_moe_layers() == 0) return tensors;
  if (definition.moe.expert_bias) {
    tensors.push_back({{kExpertBias, DType::fp32, shape}, memory.expert_bias()});
  }
  if (definition.moe.goes_by_previous_load()) {
    tensors.push_back({{kPreviousLoad, DType::fp64, shape}, memory.previous_load()});
  }
  return tensors;
}

/// All tensors of a checkpoint of this model, on whichever ranks they are.
std::vector<TensorInfo> saved_tensors(ModelRunner& runner, const Optimizer& optimizer) {
  const ModelDefinition& definition = runner.model().definition();
  std::vector<TensorInfo> tensors;
  for (const ParameterSpec& spec : parameter_specs(definition)) {
    const DType wide = accum_type(spec.type);
    tensors.push_back({kModelGroup + spec.name, spec.type, spec.shape});
    if (spec.type != wide) tensors.push_back({kMasterGroup + spec.name, wide, spec.shape});
    const DType of_moments = optimizer.type_of_moments(spec.type);
    tensors.push_back({kExpAvgGroup + spec.name, of_moments, spec.shape});
    tensors.push_back({kExpAvgSqGroup + spec.name, of_moments, spec.shape});
  }
  for (const auto& [info, view] : routing_tensors(runner)) tensors.push_back(info);
  return tensors;
}

/// What of them is on this rank.
TensorParts saved_parts(const Optimizer& optimizer, ModelRunner& runner) {
  const Groups& groups = runner.groups();
  TensorParts parts;
  runner.model().visit_parameters([&](const Parameter& parameter) {
    parts.emplace(kModelGroup + parameter.name(), part_of(parameter, parameter.value(), groups));
  });
  for (const Optimizer::State& entry : optimizer.states()) {
    const auto add = [&](const char* group, const AnyView& view) {
      parts.emplace(group + entry.piece.parameter->name(), part_of(entry, view, groups));
    };
    if (entry.has_master()) add(kMasterGroup, entry.master);
    add(kExpAvgGroup, entry.first_moment);
    add(kExpAvgSqGroup, entry.second_moment);
  }
  for (const auto& [info, view] : routing_tensors(runner)) {
    parts.emplace(info.name, TensorPart{view, ShardRange::of(Shard::whole(info.shape)),
                                        groups.world->rank() == 0});
  }
  return parts;
}

void require_finite(ModelRunner& runner, const TensorParts& parts) {
  for (const auto& [name, part] : parts) {
    require(ops::all_finite(runner.exec(), part.view),
            name + " has a NaN or an infinity; no checkpoint is made of it", ExitCode::numerics);
  }
}

nlohmann::json to_json(const Mapping& mapping) {
  const ParallelConfig& parallel = mapping.parallel;
  return {{"ranks", mapping.ranks},
          {"tp", parallel.tp},
          {"sp", parallel.sp},
          {"cp", parallel.cp},
          {"cp_comm", parallel.cp_comm},
          {"pp", parallel.pp},
          {"vpp", parallel.vpp},
          {"vpp_group_size", parallel.vpp_group_size},
          {"layout", parallel.layout},
          {"first_stage_layers", parallel.first_stage_layers},
          {"last_stage_layers", parallel.last_stage_layers},
          {"ep", parallel.ep},
          {"etp", parallel.etp},
          {"order", parallel.order}};
}

/// Whether ranks that differ along one axis differ along others too in either of the two grids.
bool order_matters(const nlohmann::json& mapping) {
  const auto size = [&](const char* axis) { return mapping.value(axis, 1); };
  const int ranks = size("ranks") / size("pp");
  const auto mixed = [&](int a, int b) {
    const int rest = ranks / (a * b);
    return (a > 1) + (b > 1) + (rest > 1) + (size("pp") > 1) > 1;
  };
  return mixed(size("tp"), size("cp")) || mixed(size("etp"), size("ep"));
}

/// "4 ranks with parallel.ep = 2, parallel.order = ...": the keys that are not at their defaults.
std::string describe_mapping(const nlohmann::json& mapping) {
  const nlohmann::json usual = to_json({1, {}});
  const int ranks = mapping.value("ranks", 1);
  std::string text = std::to_string(ranks) + (ranks == 1 ? " rank" : " ranks");
  std::vector<std::string> keys;
  for (const auto& [key, value] : usual.items()) {
    const nlohmann::json is = mapping.value(key, value);
    const bool plays_a_part = key == "order" ? order_matters(mapping) : is != value;
    if (key != "ranks" && plays_a_part) keys.push_back("parallel." + key + " = " + is.dump());
  }
  return keys.empty() ? text : text + " with " + join(keys, ", ");
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
              const Mapping& mapping, ModelRunner& runner, Optimizer& optimizer) {
  optimizer.restore_values(runner.exec());
  const TensorParts parts = saved_parts(optimizer, runner);
  together(world, [&] { require_finite(runner, parts); });

  TensorCollector collector(world, runner, saved_tensors(runner, optimizer), parts);
  std::size_t collected = 0;
  const auto collect_next = [&](void* host) { collector.collect(collected++, host); };
  CheckpointContent content;
  content.step = state.step;
  content.deck = deck;
  content.provenance = provenance;
  content.state = {{"step", state.step},
                   {"samples", state.samples},
                   {"tokens", state.tokens},
                   {"nan_steps", state.nan_steps},
                   {"mapping", to_json(mapping)}};
  for (const TensorInfo& info : collector.tensors())
    content.tensors.push_back({info, collect_next});
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
  while (collected < collector.tensors().size()) collect_next(nullptr);
  agree_on_error(world, error);
}

RunState load_run(const Checkpoint& checkpoint, ModelRunner& runner, Optimizer& optimizer) {
  const ExecSpace& exec = runner.exec();
  runner.model().visit_parameters([&](Parameter& parameter) {
    checkpoint.read(exec, kModelGroup + parameter.name(), parameter.spec().shape, parameter.shard(),
                    parameter.new_value());
  });
  for (const Optimizer::State& entry : optimizer.states()) {
    const auto read = [&](const char* group, const AnyView& view) {
      const ParameterPiece& piece = entry.piece;
      checkpoint.read(exec, group + piece.parameter->name(), piece.parameter->spec().shape,
                      ShardRange{piece.parameter->shard(), piece.first, piece.count}, view);
    };
    if (entry.has_master()) read(kMasterGroup, entry.master);
    read(kExpAvgGroup, entry.first_moment);
    read(kExpAvgSqGroup, entry.second_moment);
  }
  for (const auto& [info, view] : routing_tensors(runner)) {
    // A run may have taken to a loss that needs it after this checkpoint.
    if (!checkpoint.has(info.name)) continue;
    checkpoint.read(exec, info.name, info.shape, Shard::whole(info.shape), view);
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
