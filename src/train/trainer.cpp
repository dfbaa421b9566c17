#include "train/trainer.hpp"

#include "base/fault.hpp"
#include "comm/agreed.hpp"
#include "train/lr_schedule.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>

namespace konclave {

Trainer::Trainer(ModelRunner& runner, const OptimizerConfig& config, std::int64_t total_steps,
                 const std::string& grad_reduce, std::uint64_t seed)
    : runner_(runner),
      config_(config),
      total_steps_(total_steps),
      seed_(seed),
      memory_(runner.memory(), MemoryClass::optimizer, "konclave::optimizer"),
      optimizer_(runner.model(), config, runner.exec(), memory_),
      reducer_(runner.model(), runner.groups(), grad_reduce) {}

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
  return step;
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

StepMetrics Trainer::step(std::int64_t step, const std::vector<HostMicroBatch>& batches) {
  const Groups& groups = runner_.groups();
  const BatchCounts counts = count(batches);
  if (counts.scored == 0) {
    throw AgreedError("a global batch without a single scored token", ExitCode::input);
  }
  StepMetrics metrics;
  metrics.tokens = counts.tokens;
  const double loss_scale = 1 / static_cast<double>(counts.scored);

  const TraceSpan whole(runner_.trace(), "step " + std::to_string(step), "step");
  optimizer_.restart_gradients();
  const MoeStep moe = moe_step(step, counts);
  std::vector<double> losses = runner_.train(batches, {loss_scale, moe});
  if (fault("loss.nan") && groups.dp->rank() == groups.dp->size() - 1 && step % 4 == 0) {
    losses.back() = std::numeric_limits<double>::quiet_NaN();
  }
  optimizer_.finish_gradients(runner_.exec());
  metrics.loss = sum_in_order(*groups.dp, losses) * loss_scale;
  {
    const TraceSpan span(runner_.trace(), "reduce gradients", "optimizer");
    reducer_.reduce(runner_.exec(), runner_.scratch());
  }
  {
    const TraceSpan span(runner_.trace(), "gradient norm, statistics", "optimizer");
    metrics.grad_norm = optimizer_.gradient_norm(runner_.exec(), runner_.scratch(), groups);
    read_statistics(runner_.exec(), moe.statistics, groups, metrics);
  }
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
