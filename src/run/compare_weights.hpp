#pragma once

#include "checkpoints/reader.hpp"
#include "run/compare_figures.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace konclave {

/// How one tensor of two checkpoints differs, in double precision whatever is stored.
struct TensorDifference {
  std::string name;
  Figure figure;
  bool equal = true;                     ///< same type, same bits
  double error = 0;                      ///< |a - b| / |b| in the 2-norm; 0 when both are 0
  double a = 0, b = 0;                   ///< where they are furthest apart
  std::vector<std::int64_t> at{};        ///< indices of that element
  std::optional<std::int64_t> expert{};  ///< of stacked experts (E,...): the one furthest away
  double expert_error = 0;

  bool within() const { return !figure.exceeded(error, equal); }
};

/// The tensors of one group, as in "optimizer/exp_avg".
struct GroupDifference {
  std::string name;
  Figure figure;
  std::int64_t tensors = 0, equal = 0, exceeded = 0;
  std::optional<TensorDifference> largest;  ///< none when all are equal
};

struct WeightsComparison {
  std::string folder_a, folder_b;  ///< the two checkpoints
  std::int64_t step_a = 0, step_b = 0;
  std::vector<GroupDifference> groups;
  std::optional<TensorDifference> first_unequal, first_exceeded;  ///< in the manifest's order
  std::vector<std::string> other_shape;                           ///< "NAME is (2, 3) and (2, 4)"
  std::vector<std::string> only_a, only_b;                        ///< tensors that one alone has
  bool complete = true;  ///< what one alone has is no difference

  bool within() const { return complete && other_shape.empty() && !first_exceeded; }
};

/// Compares every tensor, a piece of each at a time. Optimizer state that one side does not keep at
/// all (a converted model has none, fp32 has no master weights) is named and not judged, unless
/// everything is to be equal; any other tensor that one side lacks is a difference.
WeightsComparison compare_weights(const Checkpoint& a, const Checkpoint& b, const Figures& figures);

}  // namespace konclave
