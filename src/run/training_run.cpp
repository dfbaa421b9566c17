#include "run/training_run.hpp"

#include "base/fault.hpp"
#include "base/text.hpp"
#include "checkpoints/history.hpp"
#include "comm/agreed.hpp"
#include "deck/rank_rules.hpp"
#include "model/flops.hpp"
#include "run/batches.hpp"
#include "run/evaluation.hpp"
#include "run/hardware.hpp"
#include "run/model_source.hpp"
#include "run/provenance.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>
#include <thread>
#include <utility>

namespace konclave {

namespace {

constexpr double kMicro = 1e6;
/// For a rank that hangs by intention.
constexpr std::chrono::hours kLong{1};

Groups make_groups(const Communicator& world, const Deck& deck,
                   const std::shared_ptr<CommunicationLog>& communication) {
  const RankGrids grids = together(world, [&] { return place_ranks(deck, world.size()); });
  return Groups::create(world, grids, deck.parallel, communication);
}

LogConfig quiet_unless(bool speaks, LogConfig config) {
  if (!speaks) config.progress = "none";
  return config;
}

}  // namespace

TrainingRun::TrainingRun(const Communicator& world, const Deck& deck, OpTable backends,
                         const std::vector<std::string>& command_line, spdlog::logger& log)
    : world_(world),
      deck_(deck),
      log_(log),
      started_(Clock::now()),
      trace_(std::make_shared<Trace>()),
      communication_(std::make_shared<CommunicationLog>(trace_)),
      groups_(make_groups(world, deck, communication_)),
      corpus_(together(world,
                       [&] {
                         return open_corpus(deck.data, deck.definition.model.sequence_length,
                                            deck.definition.model.vocab_size);
                       })),
      runner_(deck.definition, groups_, /*trainable=*/true, std::move(backends), deck.backends),
      trainer_(runner_, deck.optimizer, deck.run.steps, deck.parallel, deck.run.seed),
      sampler_(corpus_.train->size(), deck.data.shuffle, deck.run.seed),
      progress_(quiet_unless(world.rank() == 0, deck.log), deck.run.steps, log),
      command_line_(command_line),
      step_limit_(deck.fault.step_timeout) {
  on_root(world, [&] {
    folder_.emplace(deck.run, deck.checkpoint);
    recorder_.emplace(*folder_, deck, [this](const std::string& text) {
      progress_.pause();
      log_.error("{}", text);
    });
  });
  if (!deck.definition.moe.replay.empty()) {
    replay_.emplace(world, deck, runner_.memory(), folder_ ? folder_->path() : "");
  }
  runner_.trace_to(trace_);
  runner_.model().recompute(deck.recompute);
}

ExitCode TrainingRun::run() {
  start();
  const ExitCode code = loop();
  if (watchdog_) watchdog_->rest();
  progress_.pause();
  if (recorder_) recorder_->flush();
  if (replay_) replay_->flush();
  if (code == ExitCode::done) {
    finish();
  } else {
    write_summary(summarise());
    write_report();
  }
  return code;
}

void TrainingRun::start() {
  load();
  first_step_ = state_.step;
  const std::vector<RankPlace> places = gather_places(world_);
  on_root(world_, [&] {
    provenance_ = provenance(command_line_, runner_.operations().choices(), places);
    folder_->describe(effective_deck(deck_), provenance_);
    recorder_->open(state_.step);
  });
  if (replay_) replay_->open(state_.samples);
  if (step_limit_.watches()) watch();
  for (const std::string& line : hardware_map(places)) log_.info("{}", line);
  for (const std::string& line : hardware_warnings(places)) log_.warn("warning: {}", line);
  describe();
}

void TrainingRun::watch() {
  std::string folder;
  on_root(world_, [&] { folder = fresh_hang_folder(folder_->path()).string(); });
  folder = world_.broadcast(folder, 0);
  watchdog_.emplace(HangFolder{folder, world_.rank(), world_.size()}, communication_);
}

void TrainingRun::expect(const std::string& what, double limit) {
  if (watchdog_) watchdog_->expect(what + " of step " + std::to_string(state_.step), limit);
}

void TrainingRun::load() {
  std::string found;
  on_root(world_, [&] {
    remove_stale_attempts(folder_->checkpoints());
    const auto report = [this](const std::string& text) { log_.warn("{}", text); };
    const Mapping mapping{world_.size(), deck_.parallel};
    const auto checkpoint = find_resume(deck_, mapping, folder_->checkpoints(), report);
    if (checkpoint) found = checkpoint->folder().string();
  });
  found = world_.broadcast(found, 0);
  if (!found.empty()) {
    state_ = together(
        world_, [&] { return load_run(Checkpoint::open(found), runner_, trainer_.optimizer()); });
    saved_step_ = state_.step;
    log_.info("resumed from {} at step {}", found, state_.step);
  } else if (!deck_.checkpoint.load.empty()) {
    const auto source =
        ModelSource::open(world_, deck_.checkpoint.load, deck_.definition.model.sequence_length);
    together(world_, [&] { source->load(runner_); });
    trainer_.optimizer().reset(runner_.exec());
    log_.info("weights from {}", deck_.checkpoint.load);
  } else {
    runner_.model().initialise(runner_.exec(), deck_.run.seed);
    together(world_, [&] { runner_.weights_changed(); });  // a backend may refuse
    trainer_.optimizer().reset(runner_.exec());
  }
}

void TrainingRun::describe() {
  for (const std::string& line : describe_model(deck_.definition)) log_.info("{}", line);
  for (const std::string& line : describe_backends(runner_.operations().choices())) {
    log_.info("{}", line);
  }
  if (world_.size() > 1) {
    log_.info(
        "mapping: {} ranks, tp = {}, cp = {}, dp = {}, pp = {}; experts etp = {}, ep = {}, edp = "
        "{}",
        world_.size(), groups_.tp->size(), groups_.cp->size(), groups_.dp->size(),
        groups_.pp->size(), groups_.etp->size(), groups_.ep->size(), groups_.expert_dp->size());
  }
  if (replay_) log_.info("{}", replay_->describe());
  if (deck_.definition.moe.force_load_balancing) {
    log_.warn(
        "warning: moe.force_load_balancing = true chooses experts at random, for measurements: "
        "this model learns no routing");
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
    write_trace();
    if (!metrics.finite && !go_on_after_bad_step(metrics)) return ExitCode::numerics;
    const Agreement agreed = agree(seconds);
    expect("records", step_limit_.of_step());
    last_loss_ = metrics.loss;
    const double validated = validation_due() ? validate() : -1;
    if (validated >= 0) validation_loss_ = validated;
    record(metrics, seconds, validated);
    progress_.show({state_.step, metrics.loss, validation_loss_,
                    static_cast<double>(metrics.tokens) / seconds,
                    step_seconds_ * static_cast<double>(deck_.run.steps - state_.step)});
    if (state_.step == deck_.run.steps) break;
    if (agreed.signal != 0 || agreed.out_of_time) {
      progress_.pause();
      log_.info("stopping at step {} {}: the checkpoint is saved, submit the run again",
                state_.step,
                agreed.signal != 0 ? "after signal " + std::to_string(agreed.signal)
                                   : "for run.time_limit");
      save_last();
      return ExitCode::resubmit;
    }
    if (save_due()) save_at_interval();
  }
  save_last();
  return ExitCode::done;
}

StepMetrics TrainingRun::take_step() {
  require(state_.step != 2 || world_.rank() < world_.size() - 1 || !fault("step.last_rank_fails"),
          "a seeded failure", ExitCode::input);
  if (watchdog_) {
    watchdog_->expect("step " + std::to_string(state_.step + 1), step_limit_.of_step());
  }
  trace_step(state_.step + 1);
  const Communicated before = communicated();
  batches_ = read_batch(*corpus_.train, sampler_, deck_.batch, state_.samples, groups_.dp->rank(),
                        groups_.dp->size());
  if (replay_) trainer_.use_choices(replay_->begin_step(runner_.exec(), batches_));
  StepMetrics metrics = trainer_.step(state_.step + 1, batches_);
  if (replay_) replay_->end_step(runner_.exec());
  ++state_.step;
  if (validation_due() || save_due() || state_.step == deck_.run.steps) trainer_.settle();
  count_traffic(before);
  state_.samples += deck_.batch.global_size;
  state_.tokens += metrics.tokens;
  return metrics;
}

TrainingRun::Communicated TrainingRun::communicated() const {
  return {communication_->totals(), communication_->flights(), communication_->time()};
}

void TrainingRun::count_traffic(const Communicated& before) {
  const Communicated after = communicated();
  communication_time_.all += after.time.all - before.time.all;
  communication_time_.waiting += after.time.waiting - before.time.waiting;
  communication_time_.polling += after.time.polling - before.time.polling;
  const GroupBytes step = bytes_of_groups(traffic_since(before.traffic, after.traffic));
  const FlightTable flown = flights_since(before.flights, after.flights);
  for (std::size_t group = 0; group < step.size(); ++group) {
    received_[group] += step[group];
    const auto found = flown.find(kGroupNames[group]);
    if (found == flown.end()) continue;
    flown_[group] += found->second.bytes;
    under_compute_[group] += found->second.under_compute;
  }
}

void TrainingRun::trace_step(std::int64_t step) {
  const std::vector<std::int64_t>& traced = deck_.log.trace_steps;
  trace_->set_recording(std::binary_search(traced.begin(), traced.end(), step));
}

void TrainingRun::write_trace() {
  if (!trace_->recording()) return;
  trace_->set_recording(false);
  const std::vector<std::string> events =
      world_.gather(trace_->json_events(world_.rank()), /*root=*/0);
  phases_ = mean_phases(world_, phases_of(trace_->events(), ++traced_steps_));
  try {
    on_root(world_, [&] { folder_->write_trace(trace_json(events)); });
  } catch (const AgreedError& error) {
    if (error.exit_code() != ExitCode::io) throw;
    progress_.pause();
    log_.error("no trace of step {}: {}; the run goes on", state_.step, error.what());
  }
}

void TrainingRun::record(const StepMetrics& metrics, double seconds, double validation_loss) {
  if (!speaks()) return;
  StepFacts facts;
  facts.step = state_.step;
  facts.tokens = state_.tokens;
  facts.learning_rate = trainer_.learning_rate(state_.step);
  facts.seconds = seconds;
  facts.flops = training_flops_per_token(deck_.definition) * static_cast<double>(metrics.tokens);
  facts.validation_loss = validation_loss;
  facts.memory_bytes = memory_bytes_;
  recorder_->record(facts, metrics);
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
  return evaluate(runner_, held_out, count, deck_.batch.micro_size, nullptr,
                  [&] { expect("validation", step_limit_.of_step()); })
      .loss();
}

void TrainingRun::save() {
  const Clock::time_point before = Clock::now();
  expect("checkpoint", step_limit_.of_checkpoint());
  if (replay_) replay_->flush();
  if (recorder_) recorder_->flush();  // a run that goes on from here finds all up to here
  save_run(world_, speaks() ? folder_->checkpoints() : "", effective_deck(deck_), provenance_,
           state_, {world_.size(), deck_.parallel}, runner_, trainer_.optimizer());
  saved_step_ = state_.step;
  save_seconds_ = std::chrono::duration<double>(Clock::now() - before).count();
  on_root(world_, [&] {
    remove_old_checkpoints(folder_->checkpoints(), deck_.checkpoint.keep,
                           deck_.checkpoint.keep_every);
  });
}

bool TrainingRun::save_due() const {
  const std::int64_t interval = deck_.checkpoint.interval;
  return interval > 0 && state_.step % interval == 0;
}

void TrainingRun::save_at_interval() {
  try {
    save();
  } catch (const AgreedError& error) {
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

TrainingRun::Agreement TrainingRun::agree(double seconds) {
  std::array<std::int64_t, 4> most = {signals_.received(), out_of_time() ? 1 : 0,
                                      runner_.memory().peak_total(),
                                      static_cast<std::int64_t>(seconds * kMicro)};
  const bool is_tampered = state_.step == 3 && world_.rank() == world_.size() - 1;
  if (is_tampered && fault("agree.last_rank_sleeps")) std::this_thread::sleep_for(kLong);
  if (is_tampered && fault("agree.last_rank_skips")) return {};
  const bool is_short = is_tampered && fault("agree.last_rank_passes_fewer");
  groups_.world->max(std::span<std::int64_t>(most).first(is_short ? 3 : 4));
  memory_bytes_ = most[2];
  step_limit_.add(static_cast<double>(most[3]) / kMicro);
  return {static_cast<int>(most[0]), most[1] != 0};
}

bool TrainingRun::go_on_after_bad_step(const StepMetrics& metrics) {
  ++state_.nan_steps;
  const bool go_on = state_.nan_steps <= deck_.fault.nan_budget;
  expect("search for what is no number", step_limit_.of_step());
  const NotFinite mine = trainer_.find_not_finite(state_.step, batches_);
  const std::int64_t first = groups_.world->min(mine.moment);
  const std::vector<std::string> texts =
      world_.gather(mine.moment == first ? join(mine.names, ", ") : "", /*root=*/0);
  progress_.pause();
  log_.error("step {}: loss {} and gradient norm {} are not both numbers; nothing was updated",
             state_.step, metrics.loss, metrics.grad_norm);
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    if (!texts[rank].empty())
      log_.error("rank {}: the first without a number: {}", rank, texts[rank]);
  }
  if (first == NotFinite::kNever) log_.error("taken again, the step has numbers everywhere");
  log_.error("{} of fault.nan_budget = {} such steps{}", state_.nan_steps, deck_.fault.nan_budget,
             go_on ? "; the run goes on with the next one" : "");
  return go_on;
}

}  // namespace konclave
