#pragma once

#include "checkpoints/format.hpp"
#include "comm/communicator.hpp"
#include "parallel/shard.hpp"
#include "train/model_runner.hpp"
#include "train/optimizer.hpp"

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace konclave {

/// A rank's part of a tensor, in the shape of the part or flat. Where several ranks hold the same
/// part, one of them says that it is the one that hands it out.
struct TensorPart {
  AnyView view;
  ShardRange range;
  bool hands_out = false;
};
/// By the names of tensors. Of one, a rank may hold several parts.
using TensorParts = std::multimap<std::string, TensorPart>;

/// The part of something that belongs to a parameter and is divided as it is: its values, its
/// gradient.
TensorPart part_of(const Parameter& parameter, const AnyView& view, const Groups& groups);
/// The same of a piece that has optimizer state; `view` has the piece alone.
TensorPart part_of(const Optimizer::State& state, const AnyView& view, const Groups& groups);

/// Brings tensors whose parts are spread over the ranks of a job to rank 0, one at a time and
/// whole.
class TensorCollector {
 public:
  /// Collective. `tensors` are all of the job in the same order on every rank; `parts` those that
  /// this rank has something of, by name. Throws Error(internal) when the parts don't make up the
  /// tensors.
  TensorCollector(const Communicator& world, ModelRunner& runner, std::vector<TensorInfo> tensors,
                  TensorParts parts);

  const std::vector<TensorInfo>& tensors() const { return tensors_; }

  /// The tensor in host memory of rank 0, which passes room for it, or null to drop it. Every rank
  /// calls it for the same tensors in the same order.
  void collect(std::size_t index, void* host);

 private:
  struct Holder {
    int rank = 0;
    ShardRange range;
  };

  void check_complete() const;

  ModelRunner& runner_;
  std::vector<TensorInfo> tensors_;
  TensorParts parts_;
  std::vector<std::vector<Holder>> holders_;  ///< on rank 0, by tensor; in the order of parts_
};

}  // namespace konclave
