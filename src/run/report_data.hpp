#pragma once

#include <nlohmann/json.hpp>

#include <filesystem>

namespace konclave {

/// What the report of a run shows, from the files of its folder:
///   name, steps, wanted_steps, facts: [[group, [[name, text], ...]], ...], deck: the TOML text,
///   curves: metric -> {step, value}, thinned to some thousand points; nan_steps: those without,
///   memory: [[name, bytes], ...] and phases: [[name, seconds], ...] where they are known,
///   routing: report_routing, remarks: what is missing and why.
/// Throws Error(input) when this is no folder of a run, Error(deck) when its deck is not
/// understood.
nlohmann::json report_data(const std::filesystem::path& run);

}  // namespace konclave
