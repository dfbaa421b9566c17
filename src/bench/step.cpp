#include "base/text.hpp"
#include "bench/benchmarks.hpp"
#include "bench/probes.hpp"
#include "bench/step_work.hpp"
#include "deck/check_report.hpp"
#include "model/flops.hpp"
#include "run/phases.hpp"
#include "run/process_memory.hpp"
#include "run/report.hpp"

#include <fmt/format.h>

#include <array>
#include <span>

namespace konclave {

namespace {

/// Bytes that a step moves at least beside its products, of the whole model.
struct StepBytes {
  double optimizer = 0, exchange = 0;
};

/// Each rank counts its share of what several hold.
StepBytes step_bytes(const BenchSetup& setup, ModelRunner& runner) {
  StepBytes mine;
  runner.model().visit_parameters([&](const Parameter& parameter) {
    const Transport& same = parameter.spec().routed ? *setup.groups.expert_dp : *setup.groups.dp_cp;
    const int holders =
        same.size() * (parameter.placement().on_all_tp ? setup.groups.tp->size() : 1);
    const ParameterBytes bytes = parameter_bytes(parameter.size(), setup.compute(), holders);
    mine.optimizer += static_cast<double>(bytes.optimizer) / holders;
    mine.exchange += static_cast<double>(bytes.exchange) / holders;
  });
  return {setup.sum(mine.optimizer), setup.sum(mine.exchange)};
}

/// Of all ranks together.
struct StepMemory {
  std::array<std::int64_t, kMemoryClasses> classes{};
  std::int64_t account = 0;  ///< peaks of the ranks' sums
  ProcessMemory process;
};

StepMemory step_memory(const BenchSetup& setup, const MemoryAccount& account) {
  std::array<std::int64_t, kMemoryClasses + 3> numbers{};
  for (int use = 0; use < kMemoryClasses; ++use) {
    numbers[static_cast<std::size_t>(use)] = account.peak(static_cast<MemoryClass>(use));
  }
  const ProcessMemory mine = process_memory();
  numbers[kMemoryClasses] = account.peak_total();
  numbers[kMemoryClasses + 1] = mine.peak;
  numbers[kMemoryClasses + 2] = mine.peak_of_all;
  setup.groups.world->sum(std::span<std::int64_t>(numbers));
  StepMemory memory;
  for (int use = 0; use < kMemoryClasses; ++use) {
    memory.classes[static_cast<std::size_t>(use)] = numbers[static_cast<std::size_t>(use)];
  }
  memory.account = numbers[kMemoryClasses];
  memory.process = {numbers[kMemoryClasses + 1], numbers[kMemoryClasses + 2]};
  return memory;
}

void describe_memory(const StepMemory& memory, BenchReport& report) {
  std::vector<std::string> parts;
  nlohmann::json classes;
  for (int use = 0; use < kMemoryClasses; ++use) {
    const std::int64_t bytes = memory.classes[static_cast<std::size_t>(use)];
    const std::string name(name_of(static_cast<MemoryClass>(use)));
    parts.push_back(name + " " + format_bytes(bytes));
    classes[name] = bytes;
  }
  const double ratio =
      static_cast<double>(memory.process.peak_of_all) / static_cast<double>(memory.account);
  report.text.push_back("memory of all ranks: " + join(parts, ", ") + "; account " +
                        format_bytes(memory.account) + ", processes " +
                        format_bytes(memory.process.peak_of_all) +
                        fmt::format(" ({:.2f} of the account)", ratio));
  report.more["memory"] = {{"classes", classes},
                           {"account_bytes", memory.account},
                           {"process_peak_bytes", memory.process.peak},
                           {"process_peak_bytes_shared_once", memory.process.peak_of_all}};
}

/// Of the steps that were timed, as the mean over steps and ranks.
void describe_phases(const BenchSetup& setup, Trace& trace, BenchReport& report) {
  const std::vector<Phase> phases =
      mean_phases(setup.world, phases_of(trace.events(), setup.settings.repetitions));
  double sum = 0;
  for (const Phase& phase : phases) sum += phase.seconds;
  nlohmann::json all = nlohmann::json::array();
  for (const Phase& phase : phases) {
    all.push_back(
        {{"name", phase.name}, {"seconds", phase.seconds}, {"share", phase.seconds / sum}});
    report.text.push_back(fmt::format("{:<44} {:>9.2f} ms {:>6.1f}%", phase.name,
                                      phase.seconds * 1e3, 100 * phase.seconds / sum));
  }
  report.more["phases"] = all;
  report.more["phases_seconds"] = sum;
}

}  // namespace

BenchReport bench_step(const BenchSetup& setup) {
  const ModelDefinition& definition = setup.deck.definition;
  StepWork work(setup);
  work.first_steps();
  // Before there is memory of anything but the step.
  const StepMemory memory = step_memory(setup, work.runner().memory());

  Rounds rounds(*setup.groups.world, setup.exec, setup.settings.repetitions);
  const MachineProbes probes(setup, rounds);
  rounds.add_single([&] { work.read_batch(); });
  work.trace().set_recording(true);
  const std::size_t piece = rounds.add_single([&] { work.step(); });
  rounds.run();

  BenchReport report;
  report.benchmark = "step";
  report.problem = fmt::format("{} tokens a step, {} ranks, ep = {}; {}", work.tokens(),
                               setup.world.size(), setup.groups.ep->size(),
                               join(describe_model(definition), "; ").substr(sizeof "model:"));
  report.sizes = {{"tokens", work.tokens()},
                  {"parameters", count_parameters(definition).total},
                  {"hidden", definition.model.hidden_size},
                  {"layers", definition.model.num_layers},
                  {"experts", definition.moe.num_experts},
                  {"top_k", definition.moe.top_k},
                  {"ep", setup.groups.ep->size()},
                  {"compute", name_of(definition.compute)}};
  report.limits = probes.limits(rounds);
  const auto tokens = static_cast<double>(work.tokens());
  const double flops = training_flops_per_token(definition) * tokens;
  const StepBytes bytes = step_bytes(setup, work.runner());
  const double moved = bytes.optimizer + bytes.exchange;
  const Spread seconds = rounds.timing(piece).seconds;
  report.lines.push_back({"step", "", seconds, flops, moved,
                          limit_seconds(report.limits, flops, moved),
                          "products at the best rate, then optimizer and exchange at bandwidth"});
  const double limit = report.lines.back().limit_seconds;
  report.text.push_back(fmt::format(
      "{:.1f} tokens/s ({:.1f} to {:.1f}), {:.4f} model TFLOP/s; limit {:.1f} tokens/s: {:.1f} ms "
      "of "
      "products, {:.1f} ms for {:.2f} GB",
      tokens / seconds.median, tokens / seconds.most, tokens / seconds.least,
      flops / seconds.median / 1e12, tokens / limit, limit_seconds(report.limits, flops, 0) * 1e3,
      limit_seconds(report.limits, 0, moved) * 1e3, moved / 1e9));
  report.more["tokens_per_second"] = tokens / seconds.median;
  report.more["tflops"] = flops / seconds.median / 1e12;
  report.more["limit"] = {{"tokens_per_second", tokens / limit},
                          {"product_seconds", limit_seconds(report.limits, flops, 0)},
                          {"optimizer_bytes", bytes.optimizer},
                          {"exchange_bytes", bytes.exchange}};
  describe_phases(setup, work.trace(), report);
  describe_memory(memory, report);
  return report;
}

}  // namespace konclave
