#pragma once

#include "deck/deck.hpp"
#include "run/metrics_line.hpp"
#include "run/routing_file.hpp"
#include "run/run_folder.hpp"
#include "run/tensorboard_writer.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace konclave {

/// Writes down what each step has to say: metrics.jsonl, routing.h5 where there are MoE layers, and
/// a file for TensorBoard. Rank 0's. Without metrics.jsonl a run does not go on; the other two are
/// for pictures: when one of them cannot be written, that is reported once and the run goes on.
class StepRecorder {
 public:
  /// Gets a sentence for people.
  using Report = std::function<void(const std::string&)>;

  StepRecorder(RunFolder& folder, const Deck& deck, Report report);

  /// For a run that goes on after `step`: what the files have of later steps is dropped. Throws
  /// Error(io) for metrics.jsonl.
  void open(std::int64_t step);
  void record(const StepFacts& facts, const StepMetrics& metrics);
  /// Writes what routing.h5 is still to get, as is done from time to time anyway.
  void flush();
  /// Spent here since open.
  double seconds() const { return seconds_; }

 private:
  using Clock = std::chrono::steady_clock;

  bool flush_is_due() const;
  void flush_routing();
  void write_scalars(std::int64_t step, const nlohmann::json& line);

  RunFolder& folder_;
  const Deck& deck_;
  Report report_;
  std::optional<RoutingFile> routing_;
  bool routing_fails_ = false;  ///< and that is reported
  std::optional<TensorboardWriter> tensorboard_;
  Clock::time_point flushed_ = Clock::now();
  double seconds_ = 0;
};

}  // namespace konclave
