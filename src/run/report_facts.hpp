#pragma once

#include "deck/deck.hpp"
#include "run/curve.hpp"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <map>
#include <string>

namespace konclave {

/// What metrics.jsonl has.
struct RunMetrics {
  std::map<std::string, Curve> curves;  ///< by metric
  std::int64_t steps = 0, tokens = 0;
  std::int64_t nan_steps = 0;  ///< steps whose loss or gradient norm is no number
};

/// What a report says in words: [[group, [[name, text], ...]], ...], the results first. `summary`
/// and `provenance` are the objects of those files, empty where there is none.
nlohmann::json report_facts(const RunMetrics& metrics, const Deck& deck,
                            const nlohmann::json& summary, const nlohmann::json& provenance);

}  // namespace konclave
