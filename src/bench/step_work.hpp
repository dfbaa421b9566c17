#pragma once

#include "bench/batches.hpp"
#include "bench/setup.hpp"
#include "comm/agreed.hpp"
#include "train/trainer.hpp"

#include <memory>
#include <vector>

namespace konclave {

/// Steps before anything is measured: memory grows to its size, backends make what they keep.
inline constexpr int kFirstSteps = 2;

/// Training as `konclave train` does it, on random batches and without files.
class StepWork {
 public:
  explicit StepWork(const BenchSetup& setup)
      : setup_(setup),
        trace_(std::make_shared<Trace>()),
        runner_(setup.deck.definition, setup.groups, /*trainable=*/true, setup.backends,
                setup.deck.backends),
        trainer_(runner_, setup.deck.optimizer, setup.deck.run.steps, setup.deck.parallel) {
    runner_.trace_to(trace_);
    runner_.model().initialise(runner_.exec(), setup.deck.run.seed);
    together(setup.world, [&] { runner_.weights_changed(); });  // a backend may refuse
    trainer_.optimizer().reset(runner_.exec());
  }

  void first_steps() {
    for (int step = 0; step < kFirstSteps; ++step) {
      read_batch();
      this->step();
    }
  }
  /// Makes the batch of the next step, which is no part of it.
  void read_batch() { batch_ = random_batch(setup_, steps_ + 1); }
  void step() {
    metrics_ = trainer_.step(++steps_, batch_);
    fence(runner_.exec(), "konclave::bench::step");
    require(metrics_.finite, "a training step on random tokens gave no number");
  }

  ModelRunner& runner() { return runner_; }
  Trainer& trainer() { return trainer_; }
  Trace& trace() { return *trace_; }
  std::int64_t steps() const { return steps_; }
  const StepMetrics& metrics() const { return metrics_; }
  std::int64_t tokens() const { return metrics_.tokens; }

 private:
  const BenchSetup& setup_;
  std::shared_ptr<Trace> trace_;
  ModelRunner runner_;
  Trainer trainer_;
  std::vector<HostMicroBatch> batch_;
  std::int64_t steps_ = 0;
  StepMetrics metrics_;
};

}  // namespace konclave
