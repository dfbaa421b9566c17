#pragma once

#include <string>

namespace konclave {

/// Deck section [parallel]: how the ranks are factored. dp and edp follow from the number of ranks.
struct ParallelConfig {
  int tp = 1, cp = 1, pp = 1, ep = 1, etp = 1;
  std::string order = "tp-cp-ep-dp-pp";  ///< the first axis varies fastest
  std::string grad_reduce = "ordered";   ///< "ordered" or "library"
};

}  // namespace konclave
