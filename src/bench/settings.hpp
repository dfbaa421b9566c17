#pragma once

#include "deck/deck.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace konclave {

/// What `konclave bench` was asked to do.
struct BenchSettings {
  std::vector<std::string> benchmarks;  ///< names of benchmark_names(); none: all of them
  int repetitions = 7;
  std::vector<int> rows;               ///< of products; none: the benchmark's own choice
  std::int64_t cold_mib = 128;         ///< weights that products go round together, at least
  std::vector<std::string> overrides;  ///< "section.key=value"

  /// Whether a key of the deck was given.
  bool sets(const std::string& key) const;
};

/// gemm, grouped-gemm, attention, router, dispatch, layer, step, logging.
const std::vector<std::string>& benchmark_names();

/// Throws Error(usage) when a benchmark is not one of the names, or a key belongs to a section that
/// means nothing to benchmarks.
void check_settings(const BenchSettings& settings);

/// The deck of the model that is measured: 512 hidden, 6 layers, 8 experts of which a token takes
/// 2; `ranks` share the experts, and each has a sequence of 512 tokens, two in all on one rank. The
/// overrides go on top. Throws DeckError.
Deck bench_deck(const BenchSettings& settings, int ranks);

}  // namespace konclave
