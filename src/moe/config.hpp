#pragma once

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
  bool pre_softmax = false;
  /// Sequences over which the auxiliary loss counts; 0 is the whole micro-batch.
  int window = 1;
  /// Kinds of balancing ("aux_loss" or "none") and the coefficient of each.
  std::vector<std::string> balancing = {"none"};
  std::vector<double> aux_loss_coefficients;
  double z_loss_coefficient = 0;
  std::string dispatcher = "alltoall";  ///< or "allgather"
  std::int64_t receive_budget = 0;      ///< rows that a rank accepts at once; 0: no bound

  /// Coefficient of the auxiliary loss; 0 when it is not asked for.
  double aux_loss_coefficient() const {
    for (std::size_t i = 0; i < balancing.size() && i < aux_loss_coefficients.size(); ++i) {
      if (balancing[i] == "aux_loss") return aux_loss_coefficients[i];
    }
    return 0;
  }
};

}  // namespace konclave
