#include "run/model_source.hpp"

#include "checkpoints/history.hpp"
#include "checkpoints/hugging_face.hpp"
#include "checkpoints/reader.hpp"
#include "comm/agreed.hpp"
#include "deck/deck.hpp"
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

ParallelConfig parallel_of(const std::string& deck, const std::string& name,
                           const std::vector<std::string>& overrides, int ranks) {
  const Deck read = read_deck_text(deck, name, overrides, DeckUse::model);
  ParallelConfig parallel;
  parallel.order = read.parallel.order;
  parallel.ep = origin_of(read, "parallel.ep") == "command line"
                    ? read.parallel.ep
                    : std::gcd(read.parallel.ep, ranks);
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
  ParallelConfig parallel(const std::vector<std::string>& overrides, int ranks) const override {
    return parallel_of(checkpoint_.deck(), deck_name(), overrides, ranks);
  }
  void load(ModelRunner& runner) const override {
    runner.model().visit_parameters([&](const Parameter& parameter) {
      const std::string name = kModelGroup + parameter.name();
      const bool there = checkpoint_.has(name);
      check_tensor(parameter.spec(), there ? &checkpoint_.info(name).shape : nullptr,
                   checkpoint_.folder());
      checkpoint_.read(runner.exec(), name, parameter.spec().shape, parameter.shard(),
                       parameter.value());
    });
    runner.weights_changed();
  }

 private:
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
  ParallelConfig parallel(const std::vector<std::string>& overrides, int ranks) const override {
    return parallel_of(deck(), folder_.folder().string(), overrides, ranks);
  }
  void load(ModelRunner& runner) const override {
    runner.model().visit_parameters([&](const Parameter& parameter) {
      const auto found = shapes_.find(parameter.name());
      check_tensor(parameter.spec(), found == shapes_.end() ? nullptr : &found->second,
                   folder_.folder());
      folder_.read(runner.exec(), parameter.name(), parameter.spec().shape, parameter.shard(),
                   parameter.value());
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
