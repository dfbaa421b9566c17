#pragma once

#include "model/expected_traffic.hpp"

#include <cstdint>
#include <utility>

/// What the formulas of expected_traffic are made of.
namespace konclave {

/// A group of ranks, as a TrafficKey names it.
struct TrafficGroup {
  const char* name;
  std::int64_t size;
};

/// Sizes of the groups, of their numbers and of their rows.
struct TrafficSizes {
  /// Throws Error when the sizes of the groups don't make up the ranks.
  explicit TrafficSizes(const StepShape& step);

  static bool shares_rows(const StepShape& step) {
    return step.parallel.sp && step.parallel.tp > 1;
  }

  TrafficGroup tp, cp, dp, pp, tp_cp, dp_cp, tp_dp_cp, etp, ep, etp_ep, edp;
  std::int64_t element, wide;    ///< bytes of an activation, and of what sums and weights are in
  std::int64_t wire;             ///< bytes of a gradient on its way to be summed
  std::int64_t micro_batches;    ///< of a rank
  std::int64_t inside, outside;  ///< rows of a micro-batch on a rank, in the two regions of a layer
};

/// Assignments that are left of a routing window's tokens.
struct TrafficWindow {
  std::int64_t tokens = 1, assignments = 0;
};

/// The fewest and the most: all tokens choose the same experts, or evenly.
std::pair<TrafficWindow, TrafficWindow> rows_of_window(const StepShape& step);

/// Rows that the rank with most of them gets at once, at least and at most: its share, or for each
/// token as many as it has experts or the token choices.
std::pair<std::int64_t, std::int64_t> rows_of_busiest(const StepShape& step);

}  // namespace konclave
