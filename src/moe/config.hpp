#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace konclave {

/// Deck section [moe]. Without experts every layer has a dense MLP.
struct MoeConfig {
  int num_experts = 0;
  int top_k = 2;
  int ffn_hidden_size = 0;
  /// One 0 or 1 per layer: 1 is an MoE layer. The deck also takes an integer n: layer i is an MoE
  /// layer when i % n == 0.
  std::vector<int> layer_frequency;
  int shared_ffn_hidden_size = 0;  ///< of the expert that every token passes; 0: there is none
  bool shared_gate = false;        ///< its output times sigmoid(x . w)

  std::string score_function = "softmax";  ///< or "sigmoid"
  bool pre_softmax = false;
  int num_groups = 0;                 ///< contiguous groups of experts; 0 or 1: no groups
  int group_top_k = 0;                ///< groups that a token may choose in
  double scaling_factor = 1;          ///< on the routing weights
  std::string router_dtype = "fp32";  ///< or "fp64"
  double input_jitter = 0;            ///< x times uniform(1 - it, 1 + it), in training
  bool force_load_balancing = false;  ///< random logits, for measurements
  double force_bias = 0;              ///< standard deviation of a bias on such logits
  std::string replay;                 ///< "record", or the file of recorded choices

  /// Sequences over which balance and capacity are counted; 0 is the whole micro-batch.
  int window = 1;
  /// Kinds of balancing ("aux_loss", "seq_aux_loss", "global_aux_loss", "sinkhorn" or "none"), and
  /// the coefficient of each that is a loss, in this order.
  std::vector<std::string> balancing = {"none"};
  std::vector<double> aux_loss_coefficients;
  std::string global_aux_counts = "previous";  ///< or "running"
  double z_loss_coefficient = 0;
  bool expert_bias = false;
  double expert_bias_update_rate = 1e-3;

  double capacity_factor = 0;  ///< 0: dropless
  bool pad_to_capacity = false;
  std::string drop_policy = "probs";  ///< or "position"

  std::string dispatcher = "alltoall";  ///< or "allgather"
  std::int64_t receive_budget = 0;      ///< rows that a rank accepts at once; 0: no bound

  bool records() const { return replay == "record"; }
  bool replays() const { return !replay.empty() && !records(); }
  bool has_groups() const { return num_groups > 1; }
  bool balances_by(const std::string& kind) const {
    return std::find(balancing.begin(), balancing.end(), kind) != balancing.end();
  }
  /// Which load the global loss goes by: that of the step before, or what the step has counted.
  bool goes_by_previous_load() const {
    return balances_by("global_aux_loss") && global_aux_counts == "previous";
  }
  bool goes_by_running_load() const {
    return balances_by("global_aux_loss") && global_aux_counts == "running";
  }
  /// Coefficient of a kind of loss; 0 when it is not asked for.
  double aux_loss_coefficient(const std::string& kind = "aux_loss") const {
    std::size_t loss = 0;
    for (const std::string& listed : balancing) {
      if (listed == kind)
        return loss < aux_loss_coefficients.size() ? aux_loss_coefficients[loss] : 0;
      if (listed != "sinkhorn" && listed != "none") ++loss;
    }
    return 0;
  }
};

}  // namespace konclave
