#pragma once

#include "moe/dispatch_rounds.hpp"
#include "ops/permute.hpp"
#include "parallel/groups.hpp"

#include <cstdint>
#include <vector>

namespace konclave {

/// Where the rows of a micro-batch go by all-to-all, and from where.
struct AllToAllRoute {
  struct Ranks {
    Groups::Group ep, etp;
  };
  /// Where the tokens' rows are at home.
  struct Home {
    View1<const int> token_offsets;  ///< (T+1), assignments of each token
    ops::RowPlaces places;           ///< of assignments
    std::int64_t rows = 0;           ///< how many places there are
  };

  Ranks ranks;
  Home home;
  std::vector<DispatchRound> legs;
  bool kept = true, overlaps = false;  ///< see Dispatch::Pace

  std::vector<std::int64_t> sent() const { return of_legs(&DispatchRound::sent); }
  std::vector<std::int64_t> arrived() const { return of_legs(&DispatchRound::arrived); }

 private:
  std::vector<std::int64_t> of_legs(std::int64_t DispatchRound::*rows) const {
    std::vector<std::int64_t> all;
    for (const DispatchRound& leg : legs) all.push_back(leg.*rows);
    return all;
  }
};

}  // namespace konclave
