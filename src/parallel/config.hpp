#pragma once

#include <string>

namespace konclave {

/// Deck section [parallel]: how the ranks are factored. dp and edp follow from the number of ranks.
struct ParallelConfig {
  int tp = 1, cp = 1, pp = 1, ep = 1, etp = 1;
  bool sp = false;               ///< rows of norms and residuals are shared out over tp
  std::string cp_comm = "ring";  ///< "ring", "all_gather" or "a2a"
  int vpp = 1;                   ///< model chunks of each pipeline stage
  int vpp_group_size = 0;        ///< micro-batches that pass a chunk in a row; 0 takes pp
  std::string layout;            ///< which stage has which layers; empty: evenly
  int first_stage_layers = 0, last_stage_layers = 0;  ///< 0: as many as the other stages have
  std::string order = "tp-cp-ep-dp-pp";               ///< the first axis varies fastest
  std::string grad_reduce = "ordered";                ///< "ordered" or "library"
};

}  // namespace konclave
