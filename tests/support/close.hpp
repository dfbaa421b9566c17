#pragma once

#include "tensor/view.hpp"
#include "tests/support/tolerance.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace konclave {

/// For EXPECT_TRUE: success when `actual` is within the tolerance of `expected`. Equal infinities
/// are close, a NaN is close to nothing. `typical` is the size of the terms that the elements are
/// sums of, where these may cancel: expected values count as at least so large. The message names
/// the worst element.
testing::AssertionResult close(const std::vector<double>& actual,
                               const std::vector<double>& expected, const Tolerance& tolerance,
                               double typical = 0);

/// The same for views of equal shape and any types.
testing::AssertionResult close(const ExecSpace& exec, const AnyIn& actual, const AnyIn& expected,
                               const Tolerance& tolerance, double typical = 0);

}  // namespace konclave
