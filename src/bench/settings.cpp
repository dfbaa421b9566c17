#include "bench/settings.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace konclave {

namespace {

const std::vector<std::string>& sections() {
  static const std::vector<std::string> names = {"model",     "moe",       "parallel", "batch",
                                                 "optimizer", "precision", "backends"};
  return names;
}

/// Sections that a deck has and a benchmark does without: it reads and writes no files.
bool is_of_runs(const std::string& section) {
  static const std::vector<std::string> names = {"run",        "data",  "eval",
                                                 "checkpoint", "fault", "log"};
  return std::find(names.begin(), names.end(), section) != names.end();
}

void check_name(const std::string& name) {
  const std::vector<std::string>& known = benchmark_names();
  if (std::find(known.begin(), known.end(), name) != known.end()) return;
  if (name == "checkpoint" || name == "plan") {
    fail("bench " + name + " is not there yet; there are " + enumerate(known, "and"),
         ExitCode::usage);
  }
  const std::string meant = nearest(name, known);
  fail("there is no benchmark \"" + name + "\"" +
           (meant.empty() ? "; there are " + enumerate(known, "and")
                          : ": did you mean \"" + meant + "\"?"),
       ExitCode::usage);
}

/// {0}: ranks, {1}: sequences.
constexpr const char* kDeck = R"([run]
name = "bench"
steps = 100000
[model]
vocab_size = 16384
sequence_length = 512
hidden_size = 512
num_layers = 6
num_heads = 8
num_kv_heads = 4
ffn_hidden_size = 1792
[moe]
num_experts = 8
top_k = 2
ffn_hidden_size = 1792
balancing = "aux_loss"
aux_loss_coefficients = 0.02
[parallel]
ep = {0}
[batch]
global_size = {1}
[optimizer]
lr = 1e-4
[data]
kind = "tokens"
files = ["random"]
)";

}  // namespace

bool BenchSettings::sets(const std::string& key) const {
  return std::any_of(overrides.begin(), overrides.end(),
                     [&](const std::string& text) { return text.starts_with(key + "="); });
}

const std::vector<std::string>& benchmark_names() {
  static const std::vector<std::string> names = {
      "gemm", "grouped-gemm", "attention", "router", "dispatch", "layer", "step", "logging"};
  return names;
}

void check_settings(const BenchSettings& settings) {
  for (const std::string& name : settings.benchmarks) check_name(name);
  for (const std::string& text : settings.overrides) {
    const std::string key = text.substr(0, text.find('='));
    require(!is_of_runs(key.substr(0, key.find('.'))),
            key + " means nothing to a benchmark; it takes keys of " + enumerate(sections(), "and"),
            ExitCode::usage);
  }
}

Deck bench_deck(const BenchSettings& settings, int ranks) {
  return read_deck_text(fmt::format(kDeck, ranks, std::max(2, ranks)), "deck of bench",
                        settings.overrides);
}

}  // namespace konclave
