#include "comm/agreed.hpp"
#include "data/tokenizer.hpp"
#include "run/generation.hpp"
#include "run/html_report.hpp"
#include "run/process_memory.hpp"
#include "run/training_run.hpp"

#include <algorithm>
#include <array>
#include <span>

namespace konclave {

void TrainingRun::show_sample() {
  if (deck_.log.sample_prompt.empty()) return;
  const auto tokenizer = make_tokenizer(deck_.data.tokenizer);
  GenerationConfig config;
  config.temperature = 0.7;
  config.seed = deck_.run.seed;
  config.vocabulary = tokenizer->vocab_size();
  const std::vector<int> made =
      generate(runner_, tokenizer->encode(deck_.log.sample_prompt), config);
  log_.info("sample: {}{}", deck_.log.sample_prompt, tokenizer->decode(made));
}

MemoryPeaks TrainingRun::memory_peaks() const {
  std::array<std::int64_t, kMemoryClasses + 2> peaks{};
  for (int use = 0; use < kMemoryClasses; ++use) {
    peaks[static_cast<std::size_t>(use)] = runner_.memory().peak(static_cast<MemoryClass>(use));
  }
  peaks[kMemoryClasses] = runner_.memory().peak_total();
  if (kHostAccessible) peaks[kMemoryClasses + 1] = process_memory().peak;
  groups_.world->max(std::span<std::int64_t>(peaks));
  MemoryPeaks result;
  std::copy_n(peaks.begin(), kMemoryClasses, result.classes.begin());
  result.account = peaks[kMemoryClasses];
  result.process = peaks[kMemoryClasses + 1];
  return result;
}

RunSummary TrainingRun::summarise() {
  RunSummary summary;
  summary.steps = state_.step;
  summary.steps_now = state_.step - first_step_;
  summary.tokens = state_.tokens;
  summary.seconds = seconds_running();
  summary.loss = last_loss_;
  summary.validation_loss = validation_loss_;
  summary.unigram_entropy = corpus_.unigram_entropy;
  summary.memory = memory_peaks();
  summary.phases = phases_;
  summary.traced_steps = traced_steps_;
  if (recorder_) summary.recording_seconds = recorder_->seconds();
  if (summary.steps_now > 0) {
    summary.traffic = received_;
    groups_.world->sum(std::span<std::int64_t>(summary.traffic));
    for (std::int64_t& bytes : summary.traffic) bytes /= summary.steps_now;
    summary.flown = flown_;
    summary.under_compute = under_compute_;
    groups_.world->sum(std::span<std::int64_t>(summary.flown));
    groups_.world->sum(std::span<std::int64_t>(summary.under_compute));
    const CommunicationTime& mine = communication_time_;
    std::array<std::int64_t, 3> times = {mine.all, mine.waiting, mine.polling};
    groups_.world->sum(std::span<std::int64_t>(times));
    summary.communication = {times[0], times[1], times[2]};
  }
  return summary;
}

void TrainingRun::write_summary(const RunSummary& summary) {
  if (!speaks() || summary.steps_now == 0) return;  // else what is there says more
  try {
    folder_->write_summary(summary_json(summary));
  } catch (const Error& error) {
    log_.error("no summary: {}", error.what());
  }
}

void TrainingRun::finish() {
  if (first_step_ == deck_.run.steps) {
    log_.info("the run is complete at step {}; nothing is left to do", state_.step);
    if (corpus_.validation != nullptr && deck_.eval.interval > 0) validation_loss_ = validate();
  }
  const RunSummary summary = summarise();
  for (const std::string& line : describe_summary(summary)) log_.info("{}", line);
  write_summary(summary);
  show_sample();
  write_report();
  if (speaks()) log_.info("run folder: {}", folder_->path().string());
}

void TrainingRun::write_report() {
  if (!speaks()) return;
  const std::filesystem::path file = folder_->path() / kReportFile;
  try {
    write_html_report(folder_->path(), file);
    log_.info("report: {}", file.string());
  } catch (const Error& error) {
    log_.error("no report: {}", error.what());
  }
}

}  // namespace konclave
