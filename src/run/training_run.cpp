#include "run/training_run.hpp"

#include "base/text.hpp"
#include "checkpoints/history.hpp"
#include "data/tokenizer.hpp"
#include "model/flops.hpp"
#include "run/evaluation.hpp"
#include "run/model_source.hpp"
#include "run/provenance.hpp"
#include "run/report.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

namespace konclave {

TrainingRun::TrainingRun(const Deck& deck, OpTable backends,
                         const std::vector<std::string>& command_line, spdlog::logger& log)
    : deck_(deck),
      log_(log),
      started_(Clock::now()),
      corpus_(open_corpus(deck.data, deck.definition.model.sequence_length,
                          deck.definition.model.vocab_size)),
      folder_(deck.run, deck.checkpoint),
      runner_(deck.definition, /*trainable=*/true, std::move(backends), deck.backends),
      trainer_(runner_, deck.optimizer, deck.run.steps),
      sampler_(corpus_.train->size(), deck.data.shuffle, deck.run.seed),
      progress_(deck.log, deck.run.steps, log),
      command_line_(command_line) {}

ExitCode TrainingRun::run() {
  start();
  const ExitCode code = loop();
  progress_.pause();
  if (code == ExitCode::done) finish();
  return code;
}

void TrainingRun::start() {
  remove_stale_attempts(folder_.checkpoints());
  const auto report = [this](const std::string& text) { log_.warn("{}", text); };
  if (const auto found = find_resume(deck_, folder_.checkpoints(), report)) {
    state_ = load_run(*found, runner_, trainer_.optimizer());
    saved_step_ = state_.step;
    log_.info("resumed from {} at step {}", found->folder().string(), state_.step);
  } else if (!deck_.checkpoint.load.empty()) {
    ModelSource::open(deck_.checkpoint.load, deck_.definition.model.sequence_length)->load(runner_);
    trainer_.optimizer().reset(runner_.exec());
    log_.info("weights from {}", deck_.checkpoint.load);
  } else {
    runner_.model().initialise(runner_.exec(), deck_.run.seed);
    runner_.weights_changed();
    trainer_.optimizer().reset(runner_.exec());
  }
  first_step_ = state_.step;
  provenance_ = provenance(command_line_, runner_.operations().choices());
  folder_.describe(effective_deck(deck_), provenance_);
  folder_.open_metrics(state_.step);
  log_start();
}

void TrainingRun::log_start() {
  for (const std::string& line : describe_model(deck_.definition)) log_.info("{}", line);
  for (const std::string& line : describe_backends(runner_.operations().choices())) {
    log_.info("{}", line);
  }
  log_.info("data: {} sequences to train on, {} held out", corpus_.train->size(),
            corpus_.validation ? corpus_.validation->size() : 0);
}

ExitCode TrainingRun::loop() {
  while (state_.step < deck_.run.steps) {
    const Clock::time_point before = Clock::now();
    const StepMetrics metrics = take_step();
    const double seconds = std::chrono::duration<double>(Clock::now() - before).count();
    step_seconds_ = step_seconds_ == 0 ? seconds : 0.9 * step_seconds_ + 0.1 * seconds;
    if (!metrics.finite) return stop_for_numerics(metrics);
    last_loss_ = metrics.loss;
    const double validated = validation_due() ? validate() : -1;
    if (validated >= 0) validation_loss_ = validated;
    write_metrics(metrics, seconds, validated);
    progress_.show({state_.step, metrics.loss, validation_loss_,
                    static_cast<double>(metrics.tokens) / seconds,
                    step_seconds_ * static_cast<double>(deck_.run.steps - state_.step)});
    if (state_.step == deck_.run.steps) break;
    const int signal = signals_.received();
    if (signal != 0 || out_of_time()) {
      progress_.pause();
      log_.info("stopping at step {} {}: the checkpoint is saved, submit the run again",
                state_.step,
                signal != 0 ? "after signal " + std::to_string(signal) : "for run.time_limit");
      save_last();
      return ExitCode::resubmit;
    }
    const std::int64_t interval = deck_.checkpoint.interval;
    if (interval > 0 && state_.step % interval == 0) save_at_interval();
  }
  save_last();
  return ExitCode::done;
}

StepMetrics TrainingRun::take_step() {
  const StepMetrics metrics = trainer_.step(state_.step + 1, next_batch());
  ++state_.step;
  state_.samples += deck_.batch.global_size;
  state_.tokens += metrics.tokens;
  return metrics;
}

std::vector<HostMicroBatch> TrainingRun::next_batch() const {
  std::vector<HostMicroBatch> batches;
  for (int first = 0; first < deck_.batch.global_size; first += deck_.batch.micro_size) {
    std::vector<std::int64_t> indices;
    for (int i = 0; i < deck_.batch.micro_size; ++i) {
      indices.push_back(sampler_(state_.samples + first + i));
    }
    batches.push_back(read_sequences(*corpus_.train, indices));
  }
  return batches;
}

void TrainingRun::write_metrics(const StepMetrics& metrics, double seconds,
                                double validation_loss) {
  const auto tokens = static_cast<double>(metrics.tokens);
  const double flops = training_flops_per_token(deck_.definition) * tokens;
  nlohmann::json line = {{"step", state_.step},
                         {"tokens", state_.tokens},
                         {"loss", metrics.loss},
                         {"lr", trainer_.learning_rate(state_.step)},
                         {"grad_norm", metrics.grad_norm},
                         {"aux_loss", metrics.aux_loss},
                         {"z_loss", metrics.z_loss},
                         {"load_imbalance", metrics.load_imbalance},
                         {"dropped_fraction", 0.0},  // every layer is dropless
                         {"seconds", seconds},
                         {"tokens_per_second", tokens / seconds},
                         {"tflops", flops / seconds / 1e12},
                         {"mfu", nullptr},
                         {"memory_bytes", runner_.memory().peak_total()}};
  if (validation_loss >= 0) line["val_loss"] = validation_loss;
  folder_.write_metrics(line);
}

bool TrainingRun::validation_due() const {
  const std::int64_t interval = deck_.eval.interval;
  return corpus_.validation != nullptr && interval > 0 &&
         (state_.step % interval == 0 || state_.step == deck_.run.steps);
}

double TrainingRun::validate() {
  const Dataset& held_out = *corpus_.validation;
  const std::int64_t wanted = deck_.eval.steps * deck_.batch.global_size;
  const std::int64_t count = wanted > 0 ? std::min(wanted, held_out.size()) : held_out.size();
  return evaluate(runner_, held_out, count, deck_.batch.micro_size).loss();
}

void TrainingRun::save() {
  const Clock::time_point before = Clock::now();
  save_run(folder_.checkpoints(), effective_deck(deck_), provenance_, state_, runner_,
           trainer_.optimizer());
  saved_step_ = state_.step;
  save_seconds_ = std::chrono::duration<double>(Clock::now() - before).count();
  remove_old_checkpoints(folder_.checkpoints(), deck_.checkpoint.keep, deck_.checkpoint.keep_every);
}

void TrainingRun::save_at_interval() {
  try {
    save();
  } catch (const Error& error) {
    if (error.exit_code() != ExitCode::io) throw;
    progress_.pause();
    log_.error("no checkpoint at step {}: {}; the run goes on and tries again at step {}",
               state_.step, error.what(), state_.step + deck_.checkpoint.interval);
  }
}

void TrainingRun::save_last() {
  if (saved_step_ != state_.step) save();
}

double TrainingRun::seconds_running() const {
  return std::chrono::duration<double>(Clock::now() - started_).count();
}

bool TrainingRun::out_of_time() const {
  if (deck_.run.time_limit <= 0) return false;
  const double margin = 2 * step_seconds_ + 1.5 * save_seconds_ + 1;
  return seconds_running() + margin > deck_.run.time_limit;
}

ExitCode TrainingRun::stop_for_numerics(const StepMetrics& metrics) {
  progress_.pause();
  log_.error(
      "step {}: loss {} and gradient norm {} are not both numbers; nothing was updated, and "
      "no checkpoint is made of it",
      state_.step, metrics.loss, metrics.grad_norm);
  for (const std::string& line : find_not_finite(runner_)) log_.error("{}", line);
  return ExitCode::numerics;
}

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

void TrainingRun::finish() {
  if (first_step_ == deck_.run.steps) {
    log_.info("the run is complete at step {}; nothing is left to do", state_.step);
    if (corpus_.validation != nullptr && deck_.eval.interval > 0) validation_loss_ = validate();
  }
  RunSummary summary;
  summary.steps = state_.step;
  summary.steps_now = state_.step - first_step_;
  summary.tokens = state_.tokens;
  summary.seconds = seconds_running();
  summary.loss = last_loss_;
  summary.validation_loss = validation_loss_;
  summary.unigram_entropy = corpus_.unigram_entropy;
  for (const std::string& line : describe_summary(summary, runner_.memory())) log_.info("{}", line);
  show_sample();
  log_.info("run folder: {}", folder_.path().string());
}

}  // namespace konclave
