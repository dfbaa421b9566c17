#include "run/compare.hpp"

#include "base/text.hpp"
#include "checkpoints/format.hpp"
#include "checkpoints/history.hpp"
#include "checkpoints/manifest.hpp"
#include "run/model_source.hpp"

#include <algorithm>
#include <utility>

namespace konclave {

namespace {

namespace fs = std::filesystem;

struct SavedStep {
  std::int64_t step = 0;
  fs::path folder;
};

/// What there is of a run.
struct Side {
  fs::path path;
  Deck deck;
  bool single = false;  ///< a checkpoint of its own
  bool has_metrics = false;
  std::vector<SavedStep> checkpoints;  ///< newest first

  fs::path metrics() const { return path / "metrics.jsonl"; }
};

std::vector<SavedStep> saved_steps(const fs::path& checkpoints) {
  std::vector<SavedStep> steps;
  for (const fs::path& folder : list_checkpoints(checkpoints)) {
    steps.push_back({parse_checkpoint_name(folder.filename().string()).value_or(0), folder});
  }
  return steps;
}

fs::path checkpoints_of(const fs::path& run, const Deck& deck) {
  const fs::path inner = run / "checkpoints";
  if (fs::is_directory(inner)) return inner;
  return deck.checkpoint.folder.empty() ? run : fs::path(deck.checkpoint.folder);
}

Deck saved_deck(const Checkpoint& checkpoint) {
  return read_deck_text(checkpoint.deck(), (checkpoint.folder() / kDeckFile).string(), {},
                        DeckUse::model);
}

Side open_side(const fs::path& path) {
  require(fs::is_directory(path), "there is no run or checkpoint " + path.string(),
          ExitCode::input);
  Side side;
  side.path = path;
  side.single = fs::exists(path / kManifestFile);
  if (side.single) {
    const Checkpoint checkpoint = Checkpoint::open(path);
    side.deck = saved_deck(checkpoint);
    side.checkpoints = {{checkpoint.step(), path}};
    return side;
  }
  const fs::path deck = path / kDeckFile;
  side.deck =
      fs::exists(deck) ? read_deck(deck, {}, DeckUse::model) : saved_deck(open_checkpoint(path));
  side.has_metrics = fs::exists(side.metrics());
  side.checkpoints = saved_steps(checkpoints_of(path, side.deck));
  return side;
}

std::vector<DeckChange> deck_changes(const Deck& a, const Deck& b) {
  std::vector<DeckChange> changes = changed_keys(a, b);
  std::erase_if(changes, [](const DeckChange& change) {
    return change.key == "run.name" || change.key == "run.out" || change.key == "checkpoint.folder";
  });
  return changes;
}

/// Checkpoints to compare with each other, newest first.
std::vector<std::pair<fs::path, fs::path>> checkpoint_pairs(const Side& a, const Side& b) {
  if (a.single && b.single) return {{a.path, b.path}};
  std::vector<std::pair<fs::path, fs::path>> pairs;
  for (const SavedStep& one : a.checkpoints) {
    for (const SavedStep& other : b.checkpoints) {
      if (one.step == other.step) pairs.emplace_back(one.folder, other.folder);
    }
  }
  return pairs;
}

/// The first pair that is whole. Damage shows while a tensor is read: its blocks are checked.
std::optional<WeightsComparison> compare_newest(
    const std::vector<std::pair<fs::path, fs::path>>& pairs, const Figures& figures,
    std::vector<std::string>& remarks) {
  for (const auto& [a, b] : pairs) {
    try {
      return compare_weights(Checkpoint::open(a), Checkpoint::open(b), figures);
    } catch (const NewerFormat&) {
      throw;
    } catch (const Error& error) {
      if (error.exit_code() != ExitCode::input) throw;
      remarks.emplace_back(error.what());
    }
  }
  return {};
}

std::string steps_saved(const Side& side) {
  if (side.checkpoints.empty()) return side.path.string() + " has no checkpoint";
  std::vector<std::string> steps;
  for (const SavedStep& saved : side.checkpoints) steps.push_back(std::to_string(saved.step));
  return side.path.string() + " has checkpoints of step " + join(steps, ", ");
}

void add_metrics(const Side& a, const Side& b, Comparison& result) {
  for (const Side* side : {&a, &b}) {
    if (!side->has_metrics) {
      result.remarks.push_back("metrics are not compared: " + side->path.string() +
                               " has no metrics.jsonl");
    }
  }
  if (!a.has_metrics || !b.has_metrics) return;
  result.metrics =
      compare_metrics(read_metrics(a.metrics()), read_metrics(b.metrics()), result.figures);
  require(!result.metrics->steps.empty(),
          a.metrics().string() + " and " + b.metrics().string() + " have no step in common",
          ExitCode::input);
}

void add_weights(const Side& a, const Side& b, Comparison& result) {
  const auto pairs = checkpoint_pairs(a, b);
  result.weights = compare_newest(pairs, result.figures, result.remarks);
  require(result.weights || pairs.empty(),
          "no step has a good checkpoint in both runs: " + join(result.remarks, "; "),
          ExitCode::input);
  if (!pairs.empty()) return;
  const std::string why =
      "weights are not compared, no step is common: " + steps_saved(a) + ", " + steps_saved(b);
  require(result.metrics.has_value(), why, ExitCode::input);
  result.remarks.push_back(why);
}

}  // namespace

bool Comparison::within() const {
  return (!metrics || metrics->within()) && (!weights || weights->within());
}

bool Comparison::late() const {
  return (metrics && metrics->steps.back() > kFigureSteps) ||
         (weights && std::max(weights->step_a, weights->step_b) > kFigureSteps);
}

Comparison compare_runs(const fs::path& a, const fs::path& b, std::optional<double> tolerance) {
  const Side side_a = open_side(a), side_b = open_side(b);
  Comparison result;
  result.a = a.string();
  result.b = b.string();
  result.compute_a = side_a.deck.definition.compute;
  result.compute_b = side_b.deck.definition.compute;
  result.decks = deck_changes(side_a.deck, side_b.deck);
  result.figures = figures_of(result.compute_a, result.compute_b, tolerance);
  add_metrics(side_a, side_b, result);
  add_weights(side_a, side_b, result);
  return result;
}

}  // namespace konclave
