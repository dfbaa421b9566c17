#pragma once

#include "run/config.hpp"
#include "run/run_lock.hpp"

#include <nlohmann/json.hpp>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

namespace konclave {

/// The folder OUT/NAME of a run, and its folder of checkpoints if that is another one, locked for
/// this process: deck.toml, provenance.json,
/// metrics.jsonl, trace.json, summary.json and checkpoints/.
class RunFolder {
 public:
  /// Creates the folder where needed. Throws Error(resource) when another process holds it,
  /// Error(io) when it cannot be written.
  RunFolder(const RunConfig& run, const CheckpointConfig& checkpoint);

  const std::filesystem::path& path() const { return path_; }
  const std::filesystem::path& checkpoints() const { return checkpoints_; }

  /// Replaces deck.toml and provenance.json.
  void describe(const std::string& deck, const nlohmann::json& provenance);
  /// Replaces trace.json.
  void write_trace(const std::string& json) const;
  /// Replaces summary.json.
  void write_summary(const nlohmann::json& summary) const;
  /// Opens metrics.jsonl for a run that goes on after `step`: later lines, and a last one that was
  /// cut short, are dropped.
  void open_metrics(std::int64_t step);
  /// Appends one line and hands it to the system.
  void write_metrics(const nlohmann::json& line);

 private:
  std::filesystem::path path_, checkpoints_;
  RunLock lock_;
  std::optional<RunLock> checkpoints_lock_;
  std::ofstream metrics_;
};

}  // namespace konclave
