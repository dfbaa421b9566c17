#pragma once

#include "deck/schema.hpp"

#include <utility>

/// What the files of the keys share; declare_entries (deck/entries.hpp) is made of these parts.
namespace konclave::deck {

// The largest that a key may say.
inline constexpr double kMostSteps = 1e12;
inline constexpr double kLargestExtent = 1 << 24;
inline constexpr double kMostLayers = 4096;
inline constexpr double kMostRanks = 4096;  ///< of an axis

/// A key that makes the model what it is.
inline Entry& define(Schema& schema, const char* name, Form form, const char* meaning) {
  return schema.key(name, std::move(form), meaning).defines_model();
}

/// [model] and [moe].
void declare_model_entries(Schema& schema, ModelDefinition& definition);
/// [parallel] and [recompute].
void declare_parallel_entries(Schema& schema, ParallelConfig& parallel, RecomputeConfig& recompute);

}  // namespace konclave::deck
