#pragma once

#include "model/transformer.hpp"
#include "parallel/groups.hpp"
#include "train/config.hpp"

#include <vector>

namespace konclave {

/// AdamW (ops/adamw.hpp) over all parameters of a model. Master weights and moments are in the
/// accumulation type; where a parameter has that type itself, it is its own master.
class Optimizer {
 public:
  struct State {
    Parameter* parameter;
    AnyView master, first_moment, second_moment;
    bool decayed;

    /// Whether the parameter's values are only a rounding of its master weights.
    bool has_master() const { return master.type() != parameter->spec().type; }
  };

  Optimizer(Transformer& model, const OptimizerConfig& config, const ExecSpace& exec, Arena& arena);

  /// Takes the model's present values as master weights and zeroes the moments.
  void reset(const ExecSpace& exec);
  /// Between two steps: writes the values that have no memory of their own (see Parameter), from
  /// the master weights and in the place of their gradients.
  void restore_values(const ExecSpace& exec) const;
  /// Before the micro-batches of a step, and behind them: what none of them added to is zeroed.
  void restart_gradients();
  void finish_gradients(const ExecSpace& exec);
  /// 2-norm of all gradients of the model together, summed in double in a fixed order. Each element
  /// counts once: what all ranks of tp hold on its first one, a tied matrix on the first stage.
  /// Waits for `exec`.
  double gradient_norm(const ExecSpace& exec, Arena& scratch, const Groups& groups) const;
  /// Update `step` = 1, 2, ...: gradients are scaled so that their norm is at most clip_norm.
  /// Values are packed for the next step as they are made.
  void update(const ExecSpace& exec, Operations& operations, Arena& scratch, std::int64_t step,
              double lr, double gradient_norm);

  /// In the order of the model's parameters; for checkpoints.
  const std::vector<State>& states() const { return states_; }

 private:
  OptimizerConfig config_;
  std::vector<State> states_;
};

}  // namespace konclave
