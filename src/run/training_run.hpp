#pragma once

#include "data/corpus.hpp"
#include "data/sampler.hpp"
#include "deck/deck.hpp"
#include "model/group_bytes.hpp"
#include "run/phases.hpp"
#include "run/progress.hpp"
#include "run/report.hpp"
#include "run/routing_replay.hpp"
#include "run/run_folder.hpp"
#include "run/saved_run.hpp"
#include "run/signals.hpp"
#include "run/step_limit.hpp"
#include "run/step_recorder.hpp"
#include "run/watchdog.hpp"
#include "train/trainer.hpp"

#include <spdlog/logger.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace konclave {

/// The training loop: steps, metrics, validation, checkpoints, and when to stop. All ranks go
/// through it together; the run's folder is rank 0's alone.
class TrainingRun {
 public:
  TrainingRun(const Communicator& world, const Deck& deck, OpTable backends,
              const std::vector<std::string>& command_line, spdlog::logger& log);

  /// See train() in run/training.hpp.
  ExitCode run();

 private:
  using Clock = std::chrono::steady_clock;

  void start();
  /// Weights, optimizer and state: of a checkpoint, of another model, or fresh.
  void load();
  void describe();
  /// Steps until the end or until there is a reason to stop.
  ExitCode loop();
  StepMetrics take_step();
  /// Adds what a step moved, `before` being the log in front of it.
  struct Communicated {
    TrafficTable traffic;
    FlightTable flights;
    CommunicationTime time;
  };
  Communicated communicated() const;
  void count_traffic(const Communicated& before);
  void record(const StepMetrics& metrics, double seconds, double validation_loss);
  /// Mean loss over held-out data; below 0 when there is none.
  double validate();
  bool validation_due() const;
  bool save_due() const;
  /// Begins to record when this step is one of log.trace_steps.
  void trace_step(std::int64_t step);
  /// Behind a step that was recorded: trace.json has it, and those recorded before. A failure is
  /// reported, and the run goes on.
  void write_trace();

  /// At an interval: a failure is reported, and the run goes on to the next interval.
  void save_at_interval();
  /// The last save of this process: throws Error(io) when it fails.
  void save_last();
  void save();
  /// What the ranks have to agree on behind each step.
  struct Agreement {
    int signal = 0;            ///< the highest that any rank got
    bool out_of_time = false;  ///< on any rank
  };
  /// Behind a step that took this rank so long.
  Agreement agree(double seconds);
  /// Starts the watchdog if the deck wants one. Collective.
  void watch();
  /// Tells the watchdog, if there is one, what comes now and how many seconds it may take.
  void expect(const std::string& what, double limit);
  bool out_of_time() const;
  double seconds_running() const;

  MemoryPeaks memory_peaks() const;
  /// Of this process, for the end of a run and for summary.json.
  RunSummary summarise();
  /// A failure is reported, here and of the report.
  void write_summary(const RunSummary& summary);
  void write_report();
  void finish();
  void show_sample();
  /// A step whose loss or gradient was no number: false when the budget for them is used up.
  bool go_on_after_bad_step(const StepMetrics& metrics);
  bool speaks() const { return world_.rank() == 0; }

  const Communicator& world_;
  const Deck& deck_;
  spdlog::logger& log_;
  StopSignals signals_;
  Clock::time_point started_;
  std::shared_ptr<Trace> trace_;
  std::shared_ptr<CommunicationLog> communication_;
  GroupBytes received_{}, flown_{}, under_compute_{};  ///< in all steps of this process
  CommunicationTime communication_time_;               ///< of these
  Groups groups_;
  Corpus corpus_;
  std::optional<RunFolder> folder_;       ///< rank 0's
  std::optional<StepRecorder> recorder_;  ///< rank 0's
  ModelRunner runner_;
  Trainer trainer_;
  std::optional<RoutingReplay> replay_;  ///< with moe.replay
  Sampler sampler_;
  Progress progress_;
  nlohmann::json provenance_;
  std::vector<std::string> command_line_;
  RunState state_;
  std::vector<HostMicroBatch> batches_;  ///< of the step
  std::int64_t saved_step_ = -1, first_step_ = 0;
  double last_loss_ = 0, validation_loss_ = -1;
  int traced_steps_ = 0;
  std::vector<Phase> phases_;      ///< of them, the mean over steps and ranks; rank 0's
  std::int64_t memory_bytes_ = 0;  ///< peak so far, of the rank that needs most
  double step_seconds_ = 0, save_seconds_ = 0;  ///< of late, for the time limit and what is left
  StepLimit step_limit_;
  std::optional<Watchdog> watchdog_;
};

}  // namespace konclave
