#include "train/trainer.hpp"

#include "base/fault.hpp"
#include "comm/agreed.hpp"
#include "model/loss.hpp"
#include "ops/elementwise.hpp"
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

ModelRunner::ModelRunner(const ModelDefinition& definition, const Groups& groups, bool trainable,
                         OpTable table, const BackendConfig& backends)
    : groups_(groups),
      weights_(account_, MemoryClass::weights, "konclave::weights"),
      gradients_(account_, MemoryClass::gradients, "konclave::gradients"),
      activations_(account_, MemoryClass::activations, "konclave::activations"),
      scratch_(account_, MemoryClass::buffers, "konclave::scratch"),
      statistics_(account_, MemoryClass::buffers, "konclave::statistics"),
      operations_(std::move(table), backends, account_),
      model_(std::make_unique<Transformer>(
          definition, groups, ParameterStorage{&weights_, trainable ? &gradients_ : nullptr})) {
  model_->make_tables(exec_, weights_, definition.model.sequence_length);
}

void ModelRunner::weights_changed() { model_->prepare(exec_, operations_); }

MoeStatistics ModelRunner::fresh_statistics() {
  statistics_.rewind({});
  const std::int64_t layers = model_->num_moe_layers();
  const std::int64_t columns = 2 + model_->definition().moe.num_experts;
  const AnyView sums = statistics_.make(DType::fp64, layers, columns);
  ops::fill_zero(exec_, sums);
  return {sums.as2<double>()};
}

double ModelRunner::sum_losses(const View1<double>& losses) {
  double sum = 0;
  for (const double loss : to_host(exec_, losses)) sum += loss;
  return sum;
}

MicroBatch ModelRunner::infer(const HostMicroBatch& batch, int sequence_length,
                              Transformer::Saved& saved) {
  activations_.rewind({});
  MicroBatch input = make_micro_batch(exec_, activations_, batch.tokens, batch.labels,
                                      sequence_length, /*window=*/0);
  model_->forward(context(), input, {input.windows, {}, fresh_statistics()}, saved);
  return input;
}

Evaluation ModelRunner::evaluate(const HostMicroBatch& batch, int sequence_length,
                                 std::vector<double>* logits) {
  Transformer::Saved saved;
  const MicroBatch input = infer(batch, sequence_length, saved);
  const auto losses = activations_.make1<double>(input.sequences.tokens);
  const LossHead head{&model_->head(), saved.hidden, input.labels, 1, losses, {}};
  loss_heads(context(), std::span(&head, 1));
  if (logits != nullptr) *logits = logits_of(saved.hidden);
  return {sum_losses(losses), input.scored};
}

std::vector<double> ModelRunner::next_logits(const std::vector<int>& tokens) {
  Transformer::Saved saved;
  infer({tokens, std::vector<int>(tokens.size(), -1)}, static_cast<int>(tokens.size()), saved);
  return logits_of(saved.hidden.slice(saved.hidden.extent(0) - 1, 1));
}

std::vector<double> ModelRunner::logits_of(const AnyIn& hidden) {
  const ArenaScope scope(scratch_);
  const AnyView logits = scratch_.make(accum_type(model_->definition().compute), hidden.extent(0),
                                       model_->head().spec().shape[0]);
  head_logits(context(), model_->head(), hidden, logits);
  return to_doubles(exec_, logits);
}

Evaluation ModelRunner::accumulate(const HostMicroBatch& batch, double loss_scale,
                                   const BalanceScale& balance, const MoeStatistics& statistics) {
  activations_.rewind({});
  const Context ctx = context();
  const ModelDefinition& definition = model_->definition();
  const MicroBatch input =
      make_micro_batch(exec_, activations_, batch.tokens, batch.labels,
                       definition.model.sequence_length, definition.moe.window);
  Transformer::Saved saved;
  model_->forward(ctx, input, {input.windows, balance, statistics}, saved);
  const auto losses = activations_.make1<double>(input.sequences.tokens);
  const AnyView gradient =
      activations_.make(definition.compute, saved.hidden.extent(0), saved.hidden.extent(1));
  const LossHead head{&model_->head(), saved.hidden, input.labels, loss_scale, losses, gradient};
  loss_heads(ctx, std::span(&head, 1));
  model_->backward(ctx, input, saved, gradient);
  return {sum_losses(losses), input.scored};
}

Trainer::Trainer(ModelRunner& runner, const OptimizerConfig& config, std::int64_t total_steps,
                 const std::string& grad_reduce)
    : runner_(runner),
      config_(config),
      total_steps_(total_steps),
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
    counts.windows += definition.moe.window == 0 ? 1 : sequences / definition.moe.window;
  }
  std::array<std::int64_t, 3> sums = {counts.tokens, counts.scored, counts.windows};
  runner_.groups().dp->sum(std::span<std::int64_t>(sums));
  if (fault("loss.local_scale")) sums[1] = counts.scored * runner_.groups().dp->size();
  if (fault("balance.local_scale")) sums[2] = counts.windows;
  return {sums[0], sums[1], sums[2]};
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
  const BalanceScale balance{1 / static_cast<double>(counts.windows),
                             1 / static_cast<double>(counts.tokens)};

  optimizer_.zero_gradients(runner_.exec());
  const MoeStatistics statistics = runner_.fresh_statistics();
  std::vector<double> losses;
  for (const HostMicroBatch& batch : batches) {
    losses.push_back(runner_.accumulate(batch, loss_scale, balance, statistics).loss_sum);
  }
  if (fault("loss.nan") && groups.dp->rank() == groups.dp->size() - 1 && step % 4 == 0) {
    losses.back() = std::numeric_limits<double>::quiet_NaN();
  }
  metrics.loss = sum_in_order(*groups.dp, losses) * loss_scale;
  reducer_.reduce(runner_.exec(), runner_.scratch());
  metrics.grad_norm = optimizer_.gradient_norm(runner_.exec(), runner_.scratch(), *groups.ep);
  read_statistics(runner_.exec(), statistics, *groups.dp, metrics);
  metrics.finite = std::isfinite(metrics.loss) && std::isfinite(metrics.grad_norm);
  if (metrics.finite) {
    optimizer_.update(runner_.exec(), step, learning_rate(step), metrics.grad_norm);
    runner_.weights_changed();
  }
  return metrics;
}

}  // namespace konclave
