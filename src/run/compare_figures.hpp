#pragma once

#include "base/dtype.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace konclave {

/// How far two runs may be apart in one quantity, and by which measure.
struct Figure {
  enum class Kind : std::uint8_t {
    reported,       ///< shown, not judged
    exact,          ///< equal to the bit
    relative,       ///< |a - b| / |b|; for tensors in the 2-norm
    mean_absolute,  ///< mean of |a - b| over the steps
  };
  Kind kind = Kind::reported;
  double limit = 0;

  /// Whether one value or tensor is too far away. A mean is judged over all steps instead.
  bool exceeded(double relative, bool equal) const;
  /// "within 1e-09 relative", "DIFFERS: not equal", ...
  std::string verdict(bool within) const;
};

/// What two runs of one deck promise each other over the first `kFigureSteps` steps.
struct Figures {
  Figure loss;
  Figure auxiliary;  ///< auxiliary and z-loss
  Figure norm;       ///< of all gradients
  Figure routing;    ///< load imbalance, dropped fraction: they show whether tokens went elsewhere
  Figure schedule{Figure::Kind::exact};  ///< learning rate, tokens: set by the deck alone
  Figure weights;                        ///< master weights too
  Figure moments;
};
inline constexpr std::int64_t kFigureSteps = 20;

/// The looser figures of two compute types. `tolerance` takes the place of the figures of losses,
/// norms and weights; 0 wants everything equal to the bit.
Figures figures_of(DType a, DType b, std::optional<double> tolerance);

/// |a - b|; 0 for two NaNs, infinite where one side alone is no finite number.
double distance(double a, double b);
/// |a - b| / |b|, and infinite when only b is 0.
double relative_distance(double a, double b);

}  // namespace konclave
