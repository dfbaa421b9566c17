#include "bench/benchmarks.hpp"
#include "bench/probes.hpp"
#include "bench/step_work.hpp"
#include "model/flops.hpp"
#include "run/step_recorder.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <unistd.h>

namespace konclave {

namespace {

/// A folder for the time that it lives.
class TemporaryFolder {
 public:
  TemporaryFolder()
      : path_(std::filesystem::temp_directory_path() /
              fmt::format("konclave-bench-{}", ::getpid())) {}
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// All that a run writes down of a step, into files that go with this object. Of rank 0.
class Records {
 public:
  explicit Records(const BenchSetup& setup) : setup_(setup), deck_(setup.deck) {
    deck_.run.out = folder_.path().string();
    deck_.log.per_layer = deck_.log.tensorboard = true;
    run_ = std::make_unique<RunFolder>(deck_.run, deck_.checkpoint);
    recorder_ = std::make_unique<StepRecorder>(*run_, deck_, [](const std::string& text) {
      fail("bench logging: " + text, ExitCode::io);
    });
    recorder_->open(/*step=*/0);
  }

  void add(const StepWork& work, double learning_rate, double seconds) {
    StepFacts facts;
    facts.step = work.steps();
    facts.tokens = work.steps() * work.tokens();
    facts.learning_rate = learning_rate;
    facts.seconds = seconds;
    facts.flops =
        training_flops_per_token(setup_.deck.definition) * static_cast<double>(work.tokens());
    recorder_->record(facts, work.metrics());
    recorder_->flush();
    ++steps_;
  }
  /// Of writing, for each of the steps.
  double seconds() const { return recorder_->seconds() / std::max(1, steps_); }

 private:
  const BenchSetup& setup_;
  TemporaryFolder folder_;
  Deck deck_;
  std::unique_ptr<RunFolder> run_;
  std::unique_ptr<StepRecorder> recorder_;
  int steps_ = 0;
};

/// Seconds of a step on this rank in each round.
using Seconds = std::vector<double>;

double measured(const std::function<void()>& step) {
  const auto begin = std::chrono::steady_clock::now();
  step();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

BenchReport bench_logging(const BenchSetup& setup) {
  StepWork work(setup);
  work.first_steps();
  std::unique_ptr<Records> records;
  on_root(setup.world, [&] { records = std::make_unique<Records>(setup); });

  Rounds rounds(*setup.groups.world, setup.exec, setup.settings.repetitions);
  const MachineProbes probes(setup, rounds);
  Seconds with, without;
  const auto plain = [&] {
    work.trainer().leave_out_statistics(true);
    without.push_back(measured([&] { work.step(); }));
  };
  const auto logged = [&] {
    work.trainer().leave_out_statistics(false);
    const double seconds = measured([&] {
      const double of_step = measured([&] { work.step(); });
      if (records == nullptr) return;
      records->add(work, work.trainer().learning_rate(work.steps()), of_step);
    });
    with.push_back(seconds);
  };
  // Either comes first as often, since the machine may be slower or faster at either place.
  rounds.add_single([&] { work.read_batch(); });
  const std::size_t piece_without = rounds.add_single(plain);
  const std::size_t piece_with = rounds.add_single(logged);
  rounds.add_single(logged);
  rounds.add_single(plain);
  rounds.run();

  const ModelDefinition& definition = setup.deck.definition;
  BenchReport report;
  report.benchmark = "logging";
  report.problem = fmt::format(
      "{} tokens a step, {} MoE layers of {} experts: a step with statistics of the routing, "
      "metrics.jsonl with layers, routing.h5 and TensorBoard, and one without",
      work.tokens(), moe_layers(definition).size(), definition.moe.num_experts);
  report.sizes = {{"tokens", work.tokens()},
                  {"hidden", definition.model.hidden_size},
                  {"layers", definition.model.num_layers},
                  {"experts", definition.moe.num_experts},
                  {"ep", setup.groups.ep->size()},
                  {"compute", name_of(definition.compute)}};
  report.limits = probes.limits(rounds);
  const double flops = training_flops_per_token(definition) * static_cast<double>(work.tokens());
  const auto line = [&](const std::string& name, std::size_t piece) {
    report.lines.push_back({name, "", rounds.timing(piece).seconds, flops, 0,
                            limit_seconds(report.limits, flops, 0), "best dense product"});
  };
  line("without", piece_without);
  line("with", piece_with);

  // The slowest rank's time of each round, both of a kind together; the first round doesn't count.
  for (Seconds* const seconds : {&with, &without}) {
    seconds->erase(seconds->begin(), seconds->begin() + 2);
    setup.groups.world->max(std::span<double>(*seconds));
  }
  std::vector<double> shares;
  for (std::size_t i = 0; i + 1 < with.size(); i += 2) {
    shares.push_back((with[i] + with[i + 1]) / (without[i] + without[i + 1]) - 1);
  }
  // Whatever else the machine does makes steps longer, never shorter.
  const double fastest = *std::min_element(with.begin(), with.end()) /
                             *std::min_element(without.begin(), without.end()) -
                         1;
  const Spread share = spread_of(shares);
  report.text.push_back(fmt::format(
      "statistics and logging: {:.2f}% of a step by the fastest of either kind, {:.2f}% "
      "by the median of {} rounds ({:.2f}% to {:.2f}%); to be below 1%",
      100 * fastest, 100 * share.median, share.count, 100 * share.least, 100 * share.most));
  const double writing = setup.sum(records != nullptr ? records->seconds() : 0);
  report.text.push_back(fmt::format("of it, writing: {:.3f} ms a step, {:.2f}%", 1e3 * writing,
                                    100 * writing / report.lines[0].seconds.median));
  report.more["logging_share"] = fastest;
  report.more["writing_seconds"] = writing;
  report.more["logging_share_of_rounds"] = {
      {"median", share.median}, {"least", share.least}, {"most", share.most}};
  return report;
}

}  // namespace konclave
