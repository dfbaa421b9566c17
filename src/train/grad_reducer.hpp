#pragma once

#include "model/transformer.hpp"
#include "parallel/groups.hpp"

#include <string>
#include <vector>

namespace konclave {

/// Sums gradients over the ranks that hold the same parameter and had other tokens: routed experts
/// over edp, everything else over dp and cp, and what every rank of tp has used on rows of its own
/// over tp too. Then the first and the last stage add up their gradients of a tied embedding.
/// Nothing is divided: the loss is scaled by the tokens of the global batch beforehand, and an
/// expert's gradient has what the tokens of all ranks gave it.
///
/// "ordered": sums in the order of ranks (parallel/collectives.hpp), so that the bits are the same
/// on every rank and in every run. "library": the communication library's own reduction. Small
/// gradients travel together in a copy, of up to kBucketElements; large ones where they are, in
/// pieces of so many.
class GradReducer {
 public:
  /// So few that a bucket, what came of it from the other ranks and their sum stay in the cache.
  static constexpr std::int64_t kBucketElements = std::int64_t{1} << 18;

  GradReducer(Transformer& model, const Groups& groups, const std::string& grad_reduce,
              std::int64_t bucket_elements = kBucketElements);

  /// Replaces every gradient by the sum over its group. Waits for `exec` where MPI does.
  void reduce(const ExecSpace& exec, Arena& scratch) const;

 private:
  /// Pieces of flattened gradients of one type that travel together; a single one is not copied.
  struct Bucket {
    std::vector<AnyView> pieces;
    std::int64_t elements = 0;
  };

  /// Takes a gradient into the last bucket as far as it fits and into others behind it, `alone`
  /// into buckets of its own.
  static void add(std::vector<Bucket>& buckets, const AnyView& gradient, std::int64_t capacity,
                  bool alone);
  void reduce(const ExecSpace& exec, Arena& scratch, const Transport& group,
              const std::vector<Bucket>& buckets) const;
  void reduce_tied(const ExecSpace& exec, Arena& scratch) const;

  Groups groups_;
  bool ordered_;
  std::vector<Bucket> dense_, replicated_, routed_;
  AnyView tied_;  ///< on the first and the last stage of a tied model with several
};

}  // namespace konclave
