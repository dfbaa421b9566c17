#include "run/step_recorder.hpp"

#include "base/text.hpp"

#include <algorithm>
#include <utility>

namespace konclave {

namespace {

/// Of routing.h5. A killed process loses at most what is younger.
constexpr std::chrono::seconds kFlushInterval{10};
constexpr std::int64_t kMostPending = std::int64_t{8} << 20;
/// What is kept for a file that cannot be written now.
constexpr std::int64_t kMostKept = std::int64_t{64} << 20;

/// Adds the time that it lives.
class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds) {}
  ~Stopwatch() {
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& seconds_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

/// The message of `work`'s Error(io), or "" when it does its work.
template <typename Work> std::string io_failure(Work&& work) {
  try {
    work();
  } catch (const Error& error) {
    if (error.exit_code() != ExitCode::io) throw;
    return error.what();
  }
  return "";
}

}  // namespace

StepRecorder::StepRecorder(RunFolder& folder, const Deck& deck, Report report)
    : folder_(folder), deck_(deck), report_(std::move(report)) {}

void StepRecorder::open(std::int64_t step) {
  folder_.open_metrics(step);
  const std::vector<std::int64_t> layers = moe_layers(deck_.definition);
  if (!layers.empty()) {
    routing_.emplace(folder_.path() / "routing.h5", layers, deck_.definition.moe.num_experts);
    const std::string failure = io_failure([&] {
      const std::string remark = routing_->open(step);
      if (!remark.empty()) report_(remark);
    });
    if (!failure.empty()) {
      report_("no statistics of the routing: " + failure + "; the run goes on");
      routing_.reset();
    }
  }
  if (deck_.log.tensorboard) {
    const std::string failure = io_failure([&] { tensorboard_.emplace(folder_.path(), step + 1); });
    if (!failure.empty()) report_("nothing for TensorBoard: " + failure + "; the run goes on");
  }
  flushed_ = Clock::now();
  seconds_ = 0;
}

void StepRecorder::record(const StepFacts& facts, const StepMetrics& metrics) {
  const Stopwatch watch(seconds_);
  nlohmann::json line = metrics_line(facts, metrics);
  if (deck_.log.per_layer) {
    line["layers"] = layer_lines(metrics, deck_.definition, deck_.parallel.ep);
  }
  folder_.write_metrics(line);
  write_scalars(facts.step, line);
  if (!routing_) return;
  routing_->add(facts.step, metrics.layers);
  if (flush_is_due()) flush_routing();
}

bool StepRecorder::flush_is_due() const {
  const bool full = routing_->pending().bytes() > kMostPending;
  return Clock::now() - flushed_ >= kFlushInterval || (full && !routing_fails_);
}

void StepRecorder::flush() {
  if (!routing_) return;
  const Stopwatch watch(seconds_);
  flush_routing();
}

void StepRecorder::flush_routing() {
  flushed_ = Clock::now();
  const std::string failure = io_failure([&] { routing_->flush(); });
  if (failure.empty()) {
    routing_fails_ = false;
    return;
  }
  if (!routing_fails_) {
    report_("the routing since step " + std::to_string(routing_->pending().step.front()) +
            " is not written: " + failure + "; the run goes on and tries again");
  }
  routing_fails_ = true;
  if (routing_->pending().bytes() <= kMostKept) return;
  report_("the statistics of the routing end here: " + format_bytes(kMostKept) +
          " of them could not be written");
  routing_.reset();
}

void StepRecorder::write_scalars(std::int64_t step, const nlohmann::json& line) {
  if (!tensorboard_) return;
  const std::string failure = io_failure([&] { tensorboard_->write(step, scalars_of(line)); });
  if (failure.empty()) return;
  report_("nothing more for TensorBoard: " + failure + "; the run goes on");
  tensorboard_.reset();
}

}  // namespace konclave
