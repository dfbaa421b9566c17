#pragma once

#include "ops/adamw.hpp"
#include "train/config.hpp"
#include "train/exchange_queue.hpp"
#include "train/grad_buckets.hpp"

#include <cstddef>
#include <map>
#include <vector>

namespace konclave {

/// AdamW (ops/adamw.hpp) over all parameters of a model. Master weights are in the accumulation
/// type; where a parameter has that type itself, it is its own master. Moments have the type of
/// optimizer.moments.
///
/// With parallel.distributed_optimizer (ZeRO-1) a rank keeps the state of what it owns of each
/// bucket, updates that, and the ranks of the bucket's group tell each other the new values; with
/// overlap_param_gather while forward goes on, which asks for each parameter before it uses it.
class Optimizer {
 public:
  /// Of one parameter or a part of it that this rank owns.
  struct State {
    ParameterPiece piece;
    AnyView master, first_moment, second_moment;  ///< (piece.count)
    bool decayed;
    /// Whether this rank alone of those of the bucket's group has it.
    bool owned;
    /// Whether, of the ranks of tp and the stages that have it, this is the one that speaks for it.
    bool speaks;

    /// How its moments are rounded if they are kept in bf16, but for the key of a step.
    ops::ChanceRounding rounding;

    /// Whether values are only a rounding of the master weights.
    bool has_master() const { return master.type() != piece.parameter->spec().type; }
  };

  /// `buckets` are those of the model, and outlive it. `seed` is the key of how moments are
  /// rounded.
  Optimizer(const std::vector<GradBucket>& buckets, const Groups& groups,
            const OptimizerConfig& config, const ParallelConfig& parallel, const ExecSpace& exec,
            Arena& arena, MemoryAccount& account, std::uint64_t seed = 0);

  /// Takes the model's present values as master weights and zeroes the moments.
  void reset(const ExecSpace& exec);
  /// Between two steps: waits for all new values, and writes those that have no memory of their own
  /// (see Parameter) from the master weights in the place of their gradients. Collective where
  /// state is distributed.
  void restore_values(const ExecSpace& exec);
  /// Before the micro-batches of a step.
  void restart_gradients();
  /// 2-norm of all gradients of the model together, summed in double in a fixed order. Each element
  /// counts once: what all ranks of tp hold on its first one, a tied matrix on the first stage.
  /// Waits for `exec`.
  double gradient_norm(const ExecSpace& exec, Arena& scratch) const;
  /// Update `step` = 1, 2, ...: gradients are scaled so that their norm is at most clip_norm.
  /// Values are packed for the next step as they are made.
  void update(const ExecSpace& exec, Operations& operations, Arena& scratch, std::int64_t step,
              double lr, double gradient_norm);

  /// Waits for the new values of a parameter that is about to be used.
  void require_values(const ExecSpace& exec, const Parameter& parameter);
  /// Lets go on what is under way.
  void poll(const ExecSpace& exec) { queue_.poll(exec); }
  /// Waits for all new values.
  void settle(const ExecSpace& exec) { queue_.finish(exec); }

  /// In which moments of a parameter with values of this type are kept.
  DType type_of_moments(DType values) const {
    return config_.moments == "bf16" ? DType::bf16 : accum_type(values);
  }
  /// What this rank has, for checkpoints.
  const std::vector<State>& states() const { return states_; }

 private:
  /// A bucket whose state is shared out; of states_, those from `first` to before `last` are the
  /// parts of it that this rank owns.
  struct Shared {
    const GradBucket* bucket;
    std::size_t first, last;
  };

  /// From the order of backward.
  static void order_for_forward(std::vector<Shared>& shared);
  void add_state(const GradBucket& bucket, const ParameterPiece& piece, bool owned, Arena& arena);
  /// Makes values of one of this rank's states.
  using Write = std::function<void(const State&, const AnyView& values)>;
  /// The ranks of a bucket tell each other the values that `write` makes; those of a parameter are
  /// packed when all are there, with `operations` if given.
  ExchangeQueue::Exchange exchange_of(const ExecSpace& exec, Operations* operations,
                                      const Shared& shared, const Write& write);

  OptimizerConfig config_;
  Groups groups_;
  std::uint64_t seed_;
  bool distributed_, overlaps_;
  std::vector<Parameter*> parameters_;
  std::vector<State> states_;   ///< of whole parameters first
  std::size_t whole_ = 0;       ///< how many of them are
  std::vector<Shared> shared_;  ///< in the order in which forward wants them
  ExchangeQueue queue_;
  std::map<const Parameter*, int> missing_;  ///< buckets with new values that are on their way
};

}  // namespace konclave
