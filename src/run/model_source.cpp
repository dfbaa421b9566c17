#include "run/model_source.hpp"

#include "checkpoints/history.hpp"
#include "checkpoints/hugging_face.hpp"
#include "checkpoints/reader.hpp"
#include "comm/agreed.hpp"
#include "deck/deck.hpp"
#include "deck/mapping_rules.hpp"
#include "deck/model_deck.hpp"

#include <numeric>
#include <utility>

namespace konclave {

namespace {

ModelDefinition with_overrides(const std::string& deck, const std::string& name,
                               const std::vector<std::string>& overrides) {
  return read_deck_text(deck, name, overrides, DeckUse::model).definition;
}

/// Where a value of a deck comes from.
std::string origin_of(const Deck& deck, const std::string& key) {
  for (const DeckValue& value : deck.values) {
    if (value.key == key) return value.origin;
  }
  fail("the deck has no key " + key);
}

/// What the command line says of [parallel], and otherwise the defaults.
ParallelConfig given_parallel(const Deck& deck) {
  ParallelConfig given;
  const auto take = [&](const std::string& key, auto ParallelConfig::*field) {
    if (origin_of(deck, "parallel." + key) == "command line") given.*field = deck.parallel.*field;
  };
  take("tp", &ParallelConfig::tp);
  take("sp", &ParallelConfig::sp);
  take("cp", &ParallelConfig::cp);
  take("cp_comm", &ParallelConfig::cp_comm);
  take("pp", &ParallelConfig::pp);
  take("vpp", &ParallelConfig::vpp);
  take("vpp_group_size", &ParallelConfig::vpp_group_size);
  take("layout", &ParallelConfig::layout);
  take("first_stage_layers", &ParallelConfig::first_stage_layers);
  take("last_stage_layers", &ParallelConfig::last_stage_layers);
  take("ep", &ParallelConfig::ep);
  take("etp", &ParallelConfig::etp);
  take("order", &ParallelConfig::order);
  return given;
}

/// The number of ranks that each group of the same experts is cut into: as in training, where these
/// ranks can be cut so.
int experts_ranks(const ParallelConfig& trained, const ParallelConfig& given, int ranks) {
  const std::int64_t others = std::int64_t{given.etp} * given.pp;
  if (ranks % others != 0) return 1;  // make_rank_grids has more to say about it
  return std::gcd(trained.ep, static_cast<int>(ranks / others));
}

ParallelConfig parallel_of(const Deck& deck, const ModelDefinition& definition, int ranks) {
  const auto is_given = [&](const char* key) { return origin_of(deck, key) == "command line"; };
  ParallelConfig parallel = given_parallel(deck);
  if (!is_given("parallel.ep")) parallel.ep = experts_ranks(deck.parallel, parallel, ranks);
  if (!is_given("parallel.sp")) parallel.sp = parallel.tp > 1 && definition.moe.num_experts > 0;
  const std::string fault = mapping_fault(definition, parallel);
  require(fault.empty(), fault, ExitCode::deck);
  return parallel;
}

/// A converted model has a deck without data, and one trained on token files may have any
/// vocabulary: bytes would be nonsense to them.
std::string tokenizer_of(const std::string& deck, const std::string& name,
                         const std::vector<std::string>& overrides) {
  const Deck read = read_deck_text(deck, name, overrides, DeckUse::model);
  const bool from_text = origin_of(read, "data.kind") != "default" && read.data.kind == "text";
  require(from_text || origin_of(read, "data.tokenizer") == "command line",
          name +
              " does not say which tokenizer its tokens are of; if they are bytes, add "
              "data.tokenizer=bytes",
          ExitCode::input);
  return read.data.tokenizer;
}

std::string shape_text(const std::vector<std::int64_t>& shape) {
  return TensorInfo{"", DType::fp32, shape}.shape_text();
}

/// The tensor of a parameter must be there and have its shape.
void check_tensor(const ParameterSpec& wanted, const std::vector<std::int64_t>* found,
                  const std::filesystem::path& folder) {
  require(found != nullptr, folder.string() + " has no tensor " + wanted.name, ExitCode::input);
  require(*found == wanted.shape,
          folder.string() + ": tensor " + wanted.name + " is " + shape_text(*found) +
              ", and the model wants " + shape_text(wanted.shape),
          ExitCode::input);
}

bool is_hugging_face(const std::filesystem::path& folder) {
  return std::filesystem::exists(folder / "config.json");
}

class CheckpointSource final : public ModelSource {
 public:
  explicit CheckpointSource(Checkpoint checkpoint) : checkpoint_(std::move(checkpoint)) {}

  ModelDefinition definition(const std::vector<std::string>& overrides) const override {
    return with_overrides(checkpoint_.deck(), deck_name(), overrides);
  }
  std::string tokenizer(const std::vector<std::string>& overrides) const override {
    return tokenizer_of(checkpoint_.deck(), deck_name(), overrides);
  }
  ParallelConfig parallel(const ModelDefinition& definition,
                          const std::vector<std::string>& overrides, int ranks) const override {
    return parallel_of(read_deck_text(checkpoint_.deck(), deck_name(), overrides, DeckUse::model),
                       definition, ranks);
  }
  void load(ModelRunner& runner) const override {
    runner.model().visit_parameters([&](Parameter& parameter) {
      const std::string name = kModelGroup + parameter.name();
      const bool there = checkpoint_.has(name);
      check_tensor(parameter.spec(), there ? &checkpoint_.info(name).shape : nullptr,
                   checkpoint_.folder());
      checkpoint_.read(runner.exec(), name, parameter.spec().shape, parameter.shard(),
                       parameter.new_value());
    });
    load_expert_bias(runner);
    runner.weights_changed();
  }

 private:
  /// Of a model that chooses with one; what a checkpoint lacks stays 0.
  void load_expert_bias(ModelRunner& runner) const {
    const ModelDefinition& definition = runner.model().definition();
    const bool wanted = definition.moe.expert_bias && definition.num_moe_layers() > 0;
    if (!wanted || !checkpoint_.has(kExpertBias)) return;
    const std::vector<std::int64_t> shape = {definition.num_moe_layers(),
                                             definition.moe.num_experts};
    require(checkpoint_.info(kExpertBias).shape == shape,
            checkpoint_.folder().string() + ": " + kExpertBias + " is " +
                shape_text(checkpoint_.info(kExpertBias).shape) + ", and the model wants " +
                shape_text(shape),
            ExitCode::input);
    checkpoint_.read(runner.exec(), kExpertBias, shape, Shard::whole(shape),
                     runner.routing_memory().expert_bias());
  }

  std::string deck_name() const { return (checkpoint_.folder() / kDeckFile).string(); }

  Checkpoint checkpoint_;
};

class HuggingFaceSource final : public ModelSource {
 public:
  HuggingFaceSource(const std::filesystem::path& folder, int sequence_length)
      : folder_(folder, sequence_length) {
    for (const TensorInfo& info : folder_.tensors()) shapes_[info.name] = info.shape;
  }

  ModelDefinition definition(const std::vector<std::string>& overrides) const override {
    return with_overrides(deck(), folder_.folder().string(), overrides);
  }
  std::string tokenizer(const std::vector<std::string>& overrides) const override {
    return tokenizer_of(deck(), folder_.folder().string(), overrides);
  }
  ParallelConfig parallel(const ModelDefinition& definition,
                          const std::vector<std::string>& overrides, int ranks) const override {
    return parallel_of(read_deck_text(deck(), folder_.folder().string(), overrides, DeckUse::model),
                       definition, ranks);
  }
  void load(ModelRunner& runner) const override {
    runner.model().visit_parameters([&](Parameter& parameter) {
      const auto found = shapes_.find(parameter.name());
      check_tensor(parameter.spec(), found == shapes_.end() ? nullptr : &found->second,
                   folder_.folder());
      folder_.read(runner.exec(), parameter.name(), parameter.spec().shape, parameter.shard(),
                   parameter.new_value());
    });
    runner.weights_changed();
  }

 private:
  std::string deck() const { return model_deck(folder_.definition(), folder_.folder().string()); }

  HfFolder folder_;
  std::map<std::string, std::vector<std::int64_t>> shapes_;
};

}  // namespace

Checkpoint open_checkpoint(const std::filesystem::path& path) {
  if (std::filesystem::exists(path / kManifestFile)) return Checkpoint::open(path);
  const std::filesystem::path inner = path / "checkpoints";
  std::string damage;
  auto found = newest_good(std::filesystem::is_directory(inner) ? inner : path,
                           [&](const std::string& text) { damage += "; " + text; });
  require(found.has_value(), path.string() + " is no checkpoint and holds no good one" + damage,
          ExitCode::input);
  return *std::move(found);
}

std::unique_ptr<ModelSource> ModelSource::open(const Communicator& world,
                                               const std::filesystem::path& path,
                                               int sequence_length) {
  std::string found;
  on_root(world, [&] {
    require(std::filesystem::is_directory(path), "there is no folder " + path.string(),
            ExitCode::input);
    found = is_hugging_face(path) ? path.string() : open_checkpoint(path).folder().string();
  });
  found = world.broadcast(found, 0);
  return together(world, [&]() -> std::unique_ptr<ModelSource> {
    if (is_hugging_face(found)) return std::make_unique<HuggingFaceSource>(found, sequence_length);
    return std::make_unique<CheckpointSource>(Checkpoint::open(found));
  });
}

}  // namespace konclave
