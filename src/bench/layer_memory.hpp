#pragma once

#include "bench/batches.hpp"
#include "moe/moe_step.hpp"
#include "ops/elementwise.hpp"
#include "tensor/arena.hpp"

namespace konclave {

/// Memory, operations and a micro-batch for one layer that is run by itself.
struct LayerMemory {
  LayerMemory(const BenchSetup& setup, int sequences)
      : exec(setup.exec), operations(setup.backends, setup.deck.backends, account) {
    const ModelDefinition& definition = setup.deck.definition;
    batch = make_micro_batch(
        exec, inputs, random_micro_batch(definition.model, sequences, /*number=*/0),
        {definition.model.sequence_length, definition.moe.window, 0, definition.model.vocab_size},
        setup.groups);
    const int experts = definition.moe.num_experts;
    const AnyView sums = inputs.make(DType::fp64, 1, MoeStatistics::columns(experts));
    const AnyView bias = inputs.make(DType::fp32, 1, experts);
    const AnyView load = inputs.make(DType::fp64, 1, experts);
    for (const AnyView& view : {sums, bias, load}) ops::fill_zero(exec, view);
    step.windows = batch.windows;
    step.scale = {1.0 / batch.windows.count, 1 / static_cast<double>(batch.sequences.tokens),
                  1.0 / batch.windows.sequences};
    step.statistics = {sums.as2<double>()};
    step.state = {bias.as2<float>(), load.as2<double>()};
    step.training = true;
  }

  Context context() { return {exec, operations, activations, scratch, trace}; }
  ParameterStorage storage() { return {&weights, &gradients}; }

  ExecSpace exec;
  MemoryAccount account;
  Arena weights{account, MemoryClass::weights, "konclave::bench::weights"};
  Arena gradients{account, MemoryClass::gradients, "konclave::bench::gradients"};
  Arena inputs{account, MemoryClass::buffers, "konclave::bench::inputs"};
  Arena activations{account, MemoryClass::activations, "konclave::bench::activations"};
  Arena scratch{account, MemoryClass::buffers, "konclave::bench::scratch"};
  Operations operations;
  Trace* trace = nullptr;
  MicroBatch batch;
  MoeStep step;
};

/// Random weights, gradients that count as zero, prepared: ready to run.
template <typename Layer> void start_layer(LayerMemory& memory, Layer& layer) {
  layer.visit_parameters([&](Parameter& parameter) {
    parameter.initialise(memory.exec, /*seed=*/1);
    parameter.restart_gradient();
  });
  layer.prepare(memory.exec, memory.operations);
}

}  // namespace konclave
