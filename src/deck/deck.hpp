#pragma once

#include "base/error.hpp"
#include "data/config.hpp"
#include "model/config.hpp"
#include "model/recompute.hpp"
#include "ops/op_table.hpp"
#include "parallel/config.hpp"
#include "run/config.hpp"
#include "train/config.hpp"

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace konclave {

/// One value of a resolved deck, for people and for files.
struct DeckValue {
  std::string key;             ///< "moe.top_k"
  std::string text;            ///< its TOML spelling
  std::string origin;          ///< "default", "FILE:LINE" or "command line"
  bool defines_model = false;  ///< may not change when a run is resumed
};

/// A whole deck, checked: each room's config struct filled in, and every value with its origin, in
/// the order of the reference page.
struct Deck {
  RunConfig run;
  ModelDefinition definition;  ///< sections [model] and [moe], and precision.compute
  BatchConfig batch;
  OptimizerConfig optimizer;
  DataConfig data;
  EvalConfig eval;
  CheckpointConfig checkpoint;
  LogConfig log;
  BackendConfig backends;
  ParallelConfig parallel;
  FaultConfig fault;
  RecomputeConfig recompute;
  std::vector<DeckValue> values;
};

/// What a deck is read for: `model` asks for the keys that define a model and leaves the rules of
/// training and of its mapping out, as for a deck embedded in a checkpoint that is only evaluated,
/// perhaps under another mapping.
enum class DeckUse { train, model };

/// Everything that is wrong with a deck at once, one "FILE:LINE:COLUMN: error: ..." after another.
class DeckError : public Error {
 public:
  explicit DeckError(const std::string& text) : Error(text, ExitCode::deck) {}
};

/// Reads `file` with what it includes, then `overrides` ("section.key=value") on top. Throws
/// DeckError, or Error(input) when the file itself cannot be read. Relative paths of input files
/// become absolute: they start at the folder of the deck that names them when they exist there,
/// else at the current directory.
Deck read_deck(const std::filesystem::path& file, const std::vector<std::string>& overrides = {},
               DeckUse use = DeckUse::train);

/// The same for a deck that is at hand as text; `name` stands for the file in messages.
Deck read_deck_text(std::string_view text, const std::string& name,
                    const std::vector<std::string>& overrides = {}, DeckUse use = DeckUse::train);

/// TOML text of every value, defaults included, each with its origin as a comment. Reading it gives
/// the same deck again.
std::string effective_deck(const Deck& deck);

struct DeckChange {
  std::string key, before, after;  ///< values in TOML spelling
  bool defines_model = false;
};

/// What differs between the deck of a saved run and the deck that resumes it.
std::vector<DeckChange> changed_keys(const Deck& before, const Deck& after);

}  // namespace konclave
