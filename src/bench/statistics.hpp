#pragma once

#include <vector>

namespace konclave {

/// What is said of several measurements of one thing.
struct Spread {
  double median = 0, least = 0, most = 0;
  int count = 0;
};

/// The median of an even number is the mean of the two in the middle. Throws Error(internal) when
/// there is none.
Spread spread_of(std::vector<double> values);

}  // namespace konclave
