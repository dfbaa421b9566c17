#pragma once

#include <cstdint>
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
  std::string grad_wire = "fp32";  ///< type in which gradients travel: "fp32" or "bf16"
  bool distributed_optimizer =
      false;  ///< state shared out over the ranks that hold the same weights
  /// Elements of a bucket of gradients or new values: so few that a bucket, what came of it from
  /// the other ranks and their sum stay in a cache.
  std::int64_t bucket_size = std::int64_t{1} << 18;
  bool overlap_grad_reduce = false;   ///< gradients travel while backward goes on
  bool overlap_param_gather = false;  ///< new values travel while forward goes on
  bool overlap_tp = false;  ///< rows travel over tp piece by piece, beside products with others
  bool overlap_ep = false;  ///< rows travel to and from experts beside these and shared experts
};

}  // namespace konclave
