#pragma once

#include <vector>

namespace konclave {

/// How far `a` is from `b`. A NaN on either side makes the figures infinite.
struct Difference {
  double max_absolute = 0;
  /// |a - b| / |b| in the 2-norm; |a| when b is all zero.
  double relative_norm = 0;
};

/// Both must have the same size.
Difference difference(const std::vector<double>& a, const std::vector<double>& b);

}  // namespace konclave
