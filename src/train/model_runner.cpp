#include "train/model_runner.hpp"

#include "layers/sequences.hpp"
#include "model/loss.hpp"
#include "ops/elementwise.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

namespace konclave {

ModelRunner::ModelRunner(const ModelDefinition& definition, const Groups& groups, bool trainable,
                         OpTable table, const BackendConfig& backends)
    : groups_(groups),
      weights_(account_, MemoryClass::weights, "konclave::weights"),
      gradients_(account_, MemoryClass::gradients, "konclave::gradients"),
      scratch_(account_, MemoryClass::buffers, "konclave::scratch"),
      statistics_(account_, MemoryClass::buffers, "konclave::statistics"),
      operations_(std::move(table), backends, account_),
      model_(std::make_unique<Transformer>(
          definition, groups, ParameterStorage{&weights_, trainable ? &gradients_ : nullptr})),
      pipeline_(*model_, groups, account_),
      routing_memory_(exec_, weights_, definition.num_moe_layers(), definition.moe) {
  model_->make_tables(exec_, weights_, definition.model.sequence_length);
}

void ModelRunner::weights_changed() { model_->prepare(exec_, operations_); }

void ModelRunner::trace_to(std::shared_ptr<Trace> trace) {
  trace_ = std::move(trace);
  pipeline_.trace_to(trace_.get());
}

MoeStatistics ModelRunner::fresh_statistics() {
  statistics_.rewind({});
  const ModelDefinition& definition = model_->definition();
  const AnyView sums = statistics_.make(DType::fp64, definition.num_moe_layers(),
                                        MoeStatistics::columns(definition.moe.num_experts));
  ops::fill_zero(exec_, sums);
  return {sums.as2<double>()};
}

RunningCounts ModelRunner::running_counts(std::size_t micro_batches) {
  const ModelDefinition& definition = model_->definition();
  const int layers = definition.num_moe_layers();
  if (!definition.moe.goes_by_running_load() || layers == 0) return {};
  const AnyView sums = statistics_.make(
      DType::fp64, static_cast<std::int64_t>(micro_batches) * layers, definition.moe.num_experts);
  return {sums.as2<double>(), layers};
}

MoeStep ModelRunner::moe_step(bool training, const BalanceScale& scale) {
  MoeStep step;
  step.scale = scale;
  step.training = training;
  step.statistics = fresh_statistics();
  step.state = routing_memory_.state();
  return step;
}

void ModelRunner::share_losses(std::vector<double>& losses) const {
  groups_.cp->sum(std::span(losses));
  groups_.pp->sum(std::span(losses));  // those of the other stages are 0
}

std::vector<double> ModelRunner::train(const std::vector<HostMicroBatch>& batches,
                                       const StepPlan& plan) {
  const ArenaScope scope(statistics_);
  StepPlan with_counts = plan;
  with_counts.moe.running = running_counts(batches.size());
  std::vector<double> losses = pipeline_.train(exec_, operations_, scratch_, batches, with_counts);
  share_losses(losses);
  return losses;
}

Pipeline::Inference ModelRunner::infer(Arena& activations, const HostMicroBatch& batch,
                                       int sequence_length) {
  return pipeline_.infer(context(activations), batch, sequence_length,
                         moe_step(/*training=*/false));
}

Evaluation ModelRunner::evaluate(const HostMicroBatch& batch, int sequence_length,
                                 std::vector<double>* logits) {
  Arena& activations = pipeline_.idle_memory();
  const Pipeline::Inference inference = infer(activations, batch, sequence_length);
  std::vector<double> sum = {0};
  if (const Parameter* const head = model_->head()) {
    const auto losses = activations.make1<double>(inference.batch.sequences.tokens);
    const LossHead loss{head, inference.output, inference.batch.labels, 1, losses, {}};
    loss_heads(context(activations), TensorParallel(groups_), std::span(&loss, 1));
    for (const double value : to_host(exec_, losses)) sum.front() += value;
    if (logits != nullptr) *logits = all_logits(inference);
  }
  share_losses(sum);
  const auto scored =
      std::count_if(batch.labels.begin(), batch.labels.end(), [](int label) { return label >= 0; });
  return {sum.front(), scored};
}

bool ModelRunner::holds_logits() const {
  return model_->head() != nullptr && groups_.tp->rank() == 0 && groups_.cp->rank() == 0;
}

std::vector<double> ModelRunner::next_logits(const std::vector<int>& tokens) {
  // What is put behind does not reach what is before it: the model is causal and drops nothing.
  const int cp = groups_.cp->size();
  const TensorParallel tp(groups_);
  const int of_tp = tp.shares_rows() ? tp.ranks() : 1;
  const auto grain =
      static_cast<std::size_t>(cp > 1 ? 2 * cp : 1) * static_cast<std::size_t>(of_tp);
  std::vector<int> padded = tokens;
  padded.resize((tokens.size() + grain - 1) / grain * grain, 0);
  const auto length = static_cast<int>(padded.size());
  const Pipeline::Inference inference =
      infer(pipeline_.idle_memory(), {padded, std::vector<int>(padded.size(), -1)}, length);

  const auto vocabulary = static_cast<std::size_t>(model_->definition().model.vocab_size);
  std::vector<double> logits(vocabulary, 0);
  if (model_->head() != nullptr) {
    const ArenaScope scope(scratch_);
    const AnyIn inside = tp.enter(exec_, scratch_, inference.output);
    const std::vector<int> mine = zigzag_positions(length, groups_.cp->rank(), cp);
    const auto found = std::find(mine.begin(), mine.end(), static_cast<int>(tokens.size()) - 1);
    const bool is_here = found != mine.end();
    const std::vector<double> row = logits_of(inside.slice(is_here ? found - mine.begin() : 0, 1));
    if (is_here) logits = row;
  }
  share_losses(logits);  // zeros but on one rank of cp and pp
  return logits;
}

std::vector<double> ModelRunner::logits_of(const AnyIn& inside) {
  const ArenaScope scope(scratch_);
  const ModelDefinition& definition = model_->definition();
  const AnyView logits =
      scratch_.make(accum_type(definition.compute), inside.extent(0), definition.model.vocab_size);
  head_logits(context(scratch_), TensorParallel(groups_), *model_->head(), inside, logits);
  return to_doubles(exec_, logits);
}

std::vector<double> ModelRunner::all_logits(const Pipeline::Inference& inference) {
  const ArenaScope scope(scratch_);
  std::vector<double> mine =
      logits_of(TensorParallel(groups_).enter(exec_, scratch_, inference.output));
  if (groups_.cp->size() == 1) return mine;
  const std::vector<std::byte> bytes = groups_.cp->gather(std::as_bytes(std::span(mine)));
  const std::vector<int> arrival = to_host(exec_, inference.batch.sequences.whole.arrival_of);
  const std::size_t row_bytes =
      static_cast<std::size_t>(model_->definition().model.vocab_size) * sizeof(double);
  std::vector<double> all(bytes.size() / sizeof(double));
  for (std::size_t row = 0; row < arrival.size(); ++row) {
    std::memcpy(reinterpret_cast<std::byte*>(all.data()) + row * row_bytes,
                bytes.data() + static_cast<std::size_t>(arrival[row]) * row_bytes, row_bytes);
  }
  return all;
}

}  // namespace konclave
