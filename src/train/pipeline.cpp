#include "train/pipeline.hpp"

#include "base/fault.hpp"
#include "parallel/tensor_parallel.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>
#include <limits>
#include <span>
#include <string>
#include <utility>

namespace konclave {

namespace {

// Of the transport: activations on their way forward, gradients on their way back.
constexpr int kForwardChannel = 0, kBackwardChannel = 1;

MoeStep of_micro_batch(MoeStep step, const MicroBatch& batch, int number) {
  step.windows = batch.windows;
  step.running.micro_batch = number;
  return step;
}

/// Makes one element a NaN.
void spoil(const ExecSpace& exec, const AnyView& view) {
  from_doubles(exec, {std::numeric_limits<double>::quiet_NaN()}, view.flatten().slice(7, 1));
}

}  // namespace

Pipeline::Slot::Slot(MemoryAccount& account)
    : memory(account, MemoryClass::activations, "konclave::activations") {}

/// All that the pieces of work of one training step share.
struct Pipeline::Step {
  const ExecSpace& exec;
  Operations& operations;
  Arena& scratch;
  const std::vector<HostMicroBatch>& batches;
  const StepPlan& plan;
  int most_in_flight;
  Trace* trace;
  std::vector<double> losses = {};
  std::vector<std::unique_ptr<Slot>> slots = {};  ///< in flight, by chunk and micro-batch
  /// Made by the losses for the last chunk, by micro-batch.
  std::vector<std::unique_ptr<Boundary>> from_losses = {};
  std::optional<Arrivals> inputs = {}, gradients = {};

  const HostMicroBatch& batch(const PipelineWork& work) const {
    return batches[static_cast<std::size_t>(work.micro_batch)];
  }
  /// Gradients that exist at most: of the slots in flight, and one each that arrives and that is
  /// sent.
  int most_gradients() const { return most_in_flight + 2; }
  std::unique_ptr<Slot>& slot(const PipelineWork& work) {
    const std::size_t row = static_cast<std::size_t>(work.chunk) * batches.size();
    return slots[row + static_cast<std::size_t>(work.micro_batch)];
  }
  Context context(Arena& activations) const {
    return {exec, operations, activations, scratch, trace};
  }
};

Pipeline::Pipeline(const Transformer& model, const Groups& groups, MemoryAccount& account)
    : model_(model),
      groups_(groups),
      pp_(groups.pp),
      account_(account),
      again_(std::make_unique<Arena>(account, MemoryClass::activations, "konclave::done_again")),
      inputs_(account, "konclave::boundary_inputs"),
      gradients_(account, "konclave::boundary_gradients") {}

bool Pipeline::is_spoiled(const Step& step) const {
  return step.plan.moe.number == 3 && groups_.dp->rank() == groups_.dp->size() - 1;
}

PipelineShape Pipeline::shape_of(std::size_t micro_batches) const {
  return {pp_->size(), model_.num_chunks(), static_cast<int>(micro_batches),
          groups_.parallel.vpp_group_size};
}

std::unique_ptr<Pipeline::Slot> Pipeline::take_slot() {
  if (free_slots_.empty()) return std::make_unique<Slot>(account_);
  std::unique_ptr<Slot> slot = std::move(free_slots_.back());
  free_slots_.pop_back();
  slot->memory.rewind({});
  return slot;
}

Arena& Pipeline::idle_memory() {
  free_slots_.push_back(take_slot());
  return free_slots_.back()->memory;
}

AnyView Pipeline::make_boundary(Arena& memory, const HostMicroBatch& batch) const {
  const ModelDefinition& definition = model_.definition();
  const std::int64_t inside = std::ssize(batch.tokens) / groups_.cp->size();
  return memory.make(definition.compute, TensorParallel(groups_).rows_outside(inside),
                     definition.model.hidden_size);
}

Arrivals Pipeline::arrivals(Step& step, const std::vector<PipelineWork>& schedule,
                            PipelineWork::Kind kind) {
  const bool forward = kind == PipelineWork::Kind::forward;
  std::vector<PipelineWork> expected;
  std::copy_if(schedule.begin(), schedule.end(), std::back_inserter(expected),
               [&](const PipelineWork& work) {
                 const bool from_here = forward ? is_first(work.chunk) : is_last(work.chunk);
                 return work.kind == kind && !from_here;
               });
  return {std::move(expected), [this, &step, forward](const PipelineWork& work) {
            std::unique_ptr<Boundary> arriving =
                forward ? inputs_.take(step.exec, step.most_in_flight + 1)
                        : gradients_.take(step.exec, step.most_gradients());
            arriving->view = make_boundary(arriving->memory, step.batch(work));
            arriving->on_its_way.emplace(
                pp_->start_receive(step.exec, arriving->view, forward ? previous() : next(),
                                   forward ? kForwardChannel : kBackwardChannel));
            return arriving;
          }};
}

void Pipeline::poll(Step& step) {
  step.inputs->poll();
  step.gradients->poll();
  gradients_.poll();
  for (const auto& slot : step.slots) {
    if (slot != nullptr && slot->sending) slot->sending->poll();
  }
}

void Pipeline::make_loss(Step& step, int micro_batch, const Slot& slot) {
  const ArenaScope scope(step.scratch);
  std::unique_ptr<Boundary> gradient = gradients_.take(step.exec, step.most_gradients());
  gradient->view =
      make_boundary(gradient->memory, step.batches[static_cast<std::size_t>(micro_batch)]);
  const auto losses = gradient->memory.make1<double>(slot.batch.sequences.tokens);
  const LossHead head{model_.head(), slot.saved.output, slot.batch.labels, step.plan.loss_scale,
                      losses,        gradient->view};
  loss_heads(step.context(gradient->memory), TensorParallel(groups_), std::span(&head, 1));
  double& sum = step.losses[static_cast<std::size_t>(micro_batch)];
  for (const double loss : to_host(step.exec, losses)) sum += loss;
  step.from_losses[static_cast<std::size_t>(micro_batch)] = std::move(gradient);
}

void Pipeline::forward(Step& step, const PipelineWork& work) {
  const ModelDefinition& definition = model_.definition();
  std::unique_ptr<Slot>& slot = step.slot(work);
  slot = take_slot();
  slot->batch = make_micro_batch(
      step.exec, slot->memory, step.batch(work),
      model_.batch_form(definition.model.sequence_length, definition.moe.window), groups_);
  AnyIn input;
  if (!is_first(work.chunk)) {
    slot->input = step.inputs->receive(step.exec, work);
    if (fault("pipeline.nan_input") && is_spoiled(step)) spoil(step.exec, slot->input->view);
    input = slot->input->view;
  }
  const std::function<void(int)> passing = [&](int place) { passing_.forward(work.chunk, place); };
  Context context = step.context(slot->memory);
  if (passing_.forward) context.passing = &passing;
  model_.forward(context, work.chunk, slot->batch,
                 of_micro_batch(step.plan.moe, slot->batch, work.micro_batch), input, slot->saved,
                 {again_.get(), observer_});
  if (is_last(work.chunk)) {
    make_loss(step, work.micro_batch, *slot);
    return;
  }
  AnyIn output = slot->saved.output;
  if (fault("pipeline.stale_boundary") && work.micro_batch > 0) {
    const auto& before = step.slot({work.kind, work.micro_batch - 1, work.chunk});
    if (before) output = before->saved.output;
  }
  slot->sending.emplace(pp_->start_send(step.exec, output, next(), kForwardChannel));
}

void Pipeline::backward(Step& step, const PipelineWork& work) {
  std::unique_ptr<Slot>& slot = step.slot(work);
  std::unique_ptr<Boundary> gradient;
  if (is_last(work.chunk)) {
    gradient = std::move(step.from_losses[static_cast<std::size_t>(work.micro_batch)]);
  } else {
    gradient = step.gradients->receive(step.exec, work);
    slot->sending->wait(step.exec);  // the next stage has long had it
    slot->sending.reset();
  }
  const std::function<void(int)> passing = [&](int place) {
    passing_.last_backward(work.chunk, place);
  };
  Context context = step.context(slot->memory);
  if (fault("pipeline.nan_gradient") && is_spoiled(step)) spoil(step.exec, gradient->view);
  const bool is_last_backward = work.micro_batch + 1 == static_cast<int>(step.batches.size()) ||
                                fault("grad_reduce.too_early");
  if (passing_.last_backward && is_last_backward) context.passing = &passing;
  model_.backward(context, work.chunk, slot->batch, slot->saved, gradient->view, {again_.get()});
  if (!is_first(work.chunk)) {
    gradient->on_its_way.emplace(
        pp_->start_send(step.exec, gradient->view, previous(), kBackwardChannel));
    inputs_.give_back(std::move(slot->input));
  }
  gradients_.give_back(std::move(gradient));
  free_slots_.push_back(std::move(slot));
}

std::vector<double> Pipeline::train(const ExecSpace& exec, Operations& operations, Arena& scratch,
                                    const std::vector<HostMicroBatch>& batches,
                                    const StepPlan& plan) {
  const std::vector<PipelineWork> schedule =
      pipeline_schedule(shape_of(batches.size()), pp_->rank());
  const std::vector<int> in_flight = slots_in_flight(schedule);
  Step step{exec,    operations, scratch,
            batches, plan,       *std::max_element(in_flight.begin(), in_flight.end()),
            trace_};
  step.losses.resize(batches.size(), 0);
  step.slots.resize(batches.size() * static_cast<std::size_t>(model_.num_chunks()));
  step.from_losses.resize(batches.size());
  step.inputs.emplace(arrivals(step, schedule, PipelineWork::Kind::forward));
  step.gradients.emplace(arrivals(step, schedule, PipelineWork::Kind::backward));
  std::optional<Operations::Pause> polling;
  if (pp_->size() > 1) {
    polling.emplace(operations, [&](const ExecSpace&) { poll(step); });
  }
  for (std::size_t i = 0; i < schedule.size(); ++i) {
    const bool is_forward = schedule[i].kind == PipelineWork::Kind::forward;
    TraceSpan span(trace_, is_forward ? "forward" : "backward", "pipeline");
    span.argument("micro_batch", std::int64_t{schedule[i].micro_batch});
    span.argument("chunk", std::int64_t{schedule[i].chunk});
    if (is_forward) {
      forward(step, schedule[i]);
    } else {
      backward(step, schedule[i]);
    }
    const auto held = std::count_if(step.slots.begin(), step.slots.end(),
                                    [](const auto& slot) { return slot != nullptr; });
    require(held == in_flight[i],
            "a pipeline stage holds the activations of " + std::to_string(held) +
                " micro-batches, and its schedule says " + std::to_string(in_flight[i]));
  }
  gradients_.wait(exec);
  return step.losses;
}

Pipeline::Inference Pipeline::infer(Context context, const HostMicroBatch& host,
                                    int sequence_length, const MoeStep& moe) const {
  const ExecSpace& exec = context.exec;
  Inference result;
  result.batch = make_micro_batch(exec, context.activations, host,
                                  model_.batch_form(sequence_length, /*window=*/0), groups_);
  for (int chunk = 0; chunk < model_.num_chunks(); ++chunk) {
    AnyView input;
    if (!is_first(chunk)) {
      input = make_boundary(context.activations, host);
      pp_->start_receive(exec, input, previous(), kForwardChannel).wait(exec);
    }
    ModelChunk::Saved saved;
    const std::function<void(int)> passing = [&](int place) { passing_.forward(chunk, place); };
    context.passing = passing_.forward ? &passing : nullptr;
    model_.forward(context, chunk, result.batch, of_micro_batch(moe, result.batch, /*number=*/0),
                   input, saved, {again_.get()});
    result.output = saved.output;
    if (!is_last(chunk)) pp_->start_send(exec, saved.output, next(), kForwardChannel).wait(exec);
  }
  return result;
}

}  // namespace konclave
