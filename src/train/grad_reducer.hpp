#pragma once

#include "train/exchange_queue.hpp"
#include "train/grad_buckets.hpp"

#include <map>
#include <vector>

namespace konclave {

/// Sums gradients over the ranks that hold the same parameter and had other tokens: routed experts
/// over edp, everything else over dp and cp, and what every rank of tp has used on rows of its own
/// over tp too. Then the first and the last stage add up their gradients of a tied embedding.
/// Nothing is divided: the loss is scaled by the tokens of the global batch beforehand, and an
/// expert's gradient has what the tokens of all ranks gave it.
///
/// With parallel.grad_reduce = "ordered": sums in the order of ranks (parallel/collectives.hpp), so
/// that the bits are the same on every rank and in every run; "library": the communication
/// library's own reduction. With grad_wire = "bf16" gradients travel to the rank that sums them
/// rounded to bf16; it adds them in fp32, and sums are not rounded. With distributed_optimizer a
/// rank gets the sums of what it owns alone, and the rest of its gradients stay what its own tokens
/// gave. With overlap_grad_reduce a bucket sets off as soon as backward has passed its parameters.
class GradReducer {
 public:
  /// `buckets` are those of the model, and outlive it. Throws Error for ways that don't exist.
  GradReducer(Transformer& model, const std::vector<GradBucket>& buckets, const Groups& groups,
              const ParallelConfig& parallel, MemoryAccount& account);

  /// The gradients of `first` and of all parameters behind it are complete: their buckets may go.
  void start_behind(const ExecSpace& exec, const Parameter& first);
  /// Lets go on what is under way.
  void poll(const ExecSpace& exec);
  /// Replaces gradients by the sums over their groups; what has not set off does. Gradients that
  /// nobody added to are zeroed. Waits for `exec` where MPI does.
  void reduce(const ExecSpace& exec, Arena& scratch);

 private:
  void start_until(const ExecSpace& exec, std::size_t bucket);
  ExchangeQueue::Exchange sum_of(const ExecSpace& exec, const GradBucket& bucket) const;
  /// From the owners of sums to all.
  ExchangeQueue::Exchange spread_of(const ExecSpace& exec, const GradBucket& bucket) const;
  void reduce_tied(const ExecSpace& exec, Arena& scratch, const GradBucket& bucket) const;

  const std::vector<GradBucket>& buckets_;
  Groups groups_;
  bool ordered_, to_owners_, narrow_, overlaps_;
  /// How many buckets, from the first on, are of a parameter and those behind it alone.
  std::map<const Parameter*, std::size_t> complete_;
  ExchangeQueue queue_;
  std::size_t started_ = 0;  ///< buckets of this step
};

}  // namespace konclave
