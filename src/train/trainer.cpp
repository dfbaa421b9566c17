#include "train/trainer.hpp"

#include "base/fault.hpp"
#include "comm/agreed.hpp"
#include "tensor/host_copy.hpp"
#include "train/lr_schedule.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <utility>

namespace konclave {

namespace {

void spoil_a_weight(ModelRunner& runner) {
  runner.model().visit_parameters([&](const Parameter& parameter) {
    if (parameter.name().find("layers.1.self_attn.k_proj") == std::string::npos) return;
    const AnyView one = parameter.value().flatten().slice(5, 1);
    from_doubles(runner.exec(), {std::numeric_limits<double>::quiet_NaN()}, one);
  });
}

}  // namespace

Trainer::Trainer(ModelRunner& runner, const OptimizerConfig& config, std::int64_t total_steps,
                 const ParallelConfig& parallel, std::uint64_t seed)
    : runner_(runner),
      config_(config),
      total_steps_(total_steps),
      seed_(seed),
      overlaps_(parallel.overlap_grad_reduce || parallel.overlap_param_gather),
      memory_(runner.memory(), MemoryClass::optimizer, "konclave::optimizer"),
      buckets_(make_grad_buckets(runner.model(), runner.groups(), parallel.bucket_size)),
      optimizer_(buckets_, runner.groups(), config, parallel, runner.exec(), memory_,
                 runner.memory(), seed),
      reducer_(runner.model(), buckets_, runner.groups(), parallel, runner.memory()) {
  if (!overlaps_) return;
  runner_.model().visit_places([&](int chunk, int place, const Parameter& parameter) {
    places_[{chunk, place}].push_back(&parameter);
  });
  overlap();
}

Trainer::~Trainer() { runner_.observe_places({}); }

void Trainer::overlap() {
  runner_.observe_places({[this](int chunk, int place) {
                            for (const Parameter* const parameter : places_[{chunk, place}]) {
                              optimizer_.require_values(runner_.exec(), *parameter);
                            }
                          },
                          [this](int chunk, int place) {
                            const std::vector<const Parameter*>& here = places_[{chunk, place}];
                            if (!here.empty()) reducer_.start_behind(runner_.exec(), *here.front());
                          }});
  polling_.emplace(runner_.operations(), [this](const ExecSpace& exec) {
    reducer_.poll(exec);
    optimizer_.poll(exec);
  });
}

double sum_in_order(const Transport& group, const std::vector<double>& mine) {
  const std::vector<std::byte> bytes = group.gather(std::as_bytes(std::span(mine)));
  double sum = 0;
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(double)) {
    double value = 0;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    sum += value;
  }
  return sum;
}

double Trainer::learning_rate(std::int64_t step) const {
  return konclave::learning_rate(config_, step, total_steps_);
}

BatchCounts Trainer::count(const std::vector<HostMicroBatch>& batches) const {
  const ModelDefinition& definition = runner_.model().definition();
  BatchCounts counts;
  for (const HostMicroBatch& batch : batches) {
    const auto tokens = static_cast<std::int64_t>(batch.tokens.size());
    const std::int64_t sequences = tokens / definition.model.sequence_length;
    counts.tokens += tokens;
    counts.scored +=
        std::count_if(batch.labels.begin(), batch.labels.end(), [](int l) { return l >= 0; });
    counts.sequences += sequences;
    counts.windows += definition.moe.window == 0 ? 1 : sequences / definition.moe.window;
  }
  std::array<std::int64_t, 4> sums = {counts.tokens, counts.scored, counts.windows,
                                      counts.sequences};
  runner_.groups().dp->sum(std::span<std::int64_t>(sums));
  if (fault("loss.local_scale")) sums[1] = counts.scored * runner_.groups().dp->size();
  if (fault("balance.local_scale")) sums[2] = counts.windows;
  return {sums[0], sums[1], sums[2], sums[3]};
}

MoeStep Trainer::moe_step(std::int64_t number, const BatchCounts& counts) {
  MoeStep step = runner_.moe_step(
      /*training=*/true,
      {1 / static_cast<double>(counts.windows), 1 / static_cast<double>(counts.tokens),
       1 / static_cast<double>(counts.sequences)});
  step.seed = seed_;
  step.number = number;
  step.choices = choices_;
  step.counts = counts_;
  return step;
}

void Trainer::leave_out_statistics(bool leave_out) {
  require(!leave_out || !(runner_.routing_memory().goes_on() ||
                          runner_.model().definition().moe.goes_by_running_load()),
          "the routers of this model go by the statistics of this step or the one before");
  counts_ = !leave_out;
}

void Trainer::remember_routing(const StepMetrics& metrics) {
  if (!runner_.routing_memory().goes_on()) return;
  std::vector<double> chosen, counted;
  for (const LayerMetrics& layer : metrics.layers) {
    chosen.insert(chosen.end(), layer.chosen.begin(), layer.chosen.end());
    counted.insert(counted.end(), layer.counted.begin(), layer.counted.end());
  }
  runner_.routing_memory().update(runner_.exec(), chosen, counted,
                                  static_cast<double>(metrics.tokens));
}

Trainer::Passed Trainer::forward_and_backward(std::int64_t step, const BatchCounts& counts,
                                              const std::vector<HostMicroBatch>& batches) {
  const Transport& dp = *runner_.groups().dp;
  Passed passed{{}, moe_step(step, counts)};
  passed.losses = runner_.train(batches, {1 / static_cast<double>(counts.scored), passed.moe});
  if (fault("loss.nan") && dp.rank() == dp.size() - 1 && step % 4 == 0) {
    passed.losses.back() = std::numeric_limits<double>::quiet_NaN();
  }
  return passed;
}

StepMetrics Trainer::step(std::int64_t step, const std::vector<HostMicroBatch>& batches) {
  const Groups& groups = runner_.groups();
  const BatchCounts counts = count(batches);
  if (counts.scored == 0) {
    throw AgreedError("a global batch without a single scored token", ExitCode::input);
  }
  StepMetrics metrics;
  metrics.tokens = counts.tokens;

  const TraceSpan whole(runner_.trace(), "step " + std::to_string(step), "step");
  optimizer_.restart_gradients();
  if (fault("weight.nan") && step == 3 && groups.dp->rank() == groups.dp->size() - 1) {
    spoil_a_weight(runner_);
  }
  const Passed passed = forward_and_backward(step, counts, batches);
  {
    const TraceSpan span(runner_.trace(), "reduce gradients", "optimizer");
    reducer_.reduce(runner_.exec(), runner_.scratch());
  }
  metrics.loss = sum_in_order(*groups.dp, passed.losses) * (1 / static_cast<double>(counts.scored));
  {
    const TraceSpan span(runner_.trace(), "gradient norm, statistics", "optimizer");
    metrics.grad_norm = optimizer_.gradient_norm(runner_.exec(), runner_.scratch());
    if (counts_) read_statistics(runner_.exec(), passed.moe.statistics, groups, metrics);
  }
  if (on_gradients_) on_gradients_();
  metrics.finite = std::isfinite(metrics.loss) && std::isfinite(metrics.grad_norm);
  if (metrics.finite) {
    const TraceSpan span(runner_.trace(), "update weights", "optimizer");
    optimizer_.update(runner_.exec(), runner_.operations(), runner_.scratch(), step,
                      learning_rate(step), metrics.grad_norm);
    remember_routing(metrics);
  }
  return metrics;
}

}  // namespace konclave
