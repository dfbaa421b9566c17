#pragma once

#include "moe/moe_layer.hpp"
#include "tests/mpi/all_ranks.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

/// What a test spreads over its ranks: an MoE layer, its tokens, and in which ways.
namespace konclave {

inline constexpr int kMoeHidden = 5, kMoeFfn = 9, kWindowTokens = 10;

struct MoeCase {
  std::string dispatcher = "alltoall";
  std::int64_t budget = 0;
  int experts = 12, top_k = 2;
  DType type = DType::fp64;
  /// Windows of each rank of dp, and how the ranks of tp and cp share the tokens of one: in these
  /// proportions, moved on by one rank from window to window.
  std::vector<int> windows = {2, 1, 3};
  std::vector<int> shares = {3, 1, 0, 2};
  std::vector<std::string> balancing = {"aux_loss"};
  std::vector<double> coefficients = {0.3};
  std::string global_counts = "previous";
  double jitter = 0;
  bool forced = false;
  double capacity = 0;
  bool padded = false;
  std::string policy = "probs";
  int shared_ffn = 0;  ///< of shared experts; tp > 1 then wants equally many tokens a rank
  bool shared_gate = true;
  std::map<int, double> logits = {};  ///< added to those of every token, for these experts
  bool sigmoid_in_groups = false;     ///< in two of four groups, scaled
  std::string router_dtype = "fp32";
  bool overlap = false;  ///< parallel.overlap_ep, with messages that are late

  int windows_of(int dp) const { return windows[static_cast<std::size_t>(dp) % windows.size()]; }
};

inline MoeLayerConfig moe_config(const MoeCase& wanted) {
  MoeConfig moe;
  moe.num_experts = wanted.experts;
  moe.top_k = wanted.top_k;
  moe.ffn_hidden_size = kMoeFfn;
  moe.balancing = wanted.balancing;
  moe.aux_loss_coefficients = wanted.coefficients;
  moe.global_aux_counts = wanted.global_counts;
  moe.z_loss_coefficient = 0.05;
  moe.dispatcher = wanted.dispatcher;
  moe.receive_budget = wanted.budget;
  moe.input_jitter = wanted.jitter;
  moe.force_load_balancing = wanted.forced;
  moe.force_bias = wanted.forced ? 0.5 : 0;
  moe.capacity_factor = wanted.capacity;
  moe.pad_to_capacity = wanted.padded;
  moe.drop_policy = wanted.policy;
  moe.shared_ffn_hidden_size = wanted.shared_ffn;
  moe.shared_gate = wanted.shared_ffn > 0 && wanted.shared_gate;
  moe.router_dtype = wanted.router_dtype;
  if (wanted.sigmoid_in_groups) {
    moe.score_function = "sigmoid";
    moe.num_groups = 4;
    moe.group_top_k = 2;
    moe.scaling_factor = 2.5;
  }
  return {moe, kMoeHidden, wanted.type, 0.5, 0.5};
}

/// Sizes of tp, cp, etp and ep for so many ranks: all that the layer can be spread over, but for
/// more than four ranks only those where both etp and ep have several.
inline std::vector<ParallelConfig> moe_mappings(int ranks, int experts = 12) {
  std::vector<ParallelConfig> mappings;
  for (int tp = 1; tp <= ranks; ++tp) {
    for (int cp = 1; tp * cp <= ranks; ++cp) {
      for (int etp = 1; etp <= ranks; ++etp) {
        for (int ep = 1; etp * ep <= ranks; ++ep) {
          if (ranks % (tp * cp) != 0 || ranks % (etp * ep) != 0 || experts % ep != 0) continue;
          if (ranks > 4 && (etp == 1 || ep == 1)) continue;
          ParallelConfig parallel;
          parallel.tp = tp;
          parallel.sp = tp > 1;
          parallel.cp = cp;
          parallel.etp = etp;
          parallel.ep = ep;
          mappings.push_back(parallel);
        }
      }
    }
  }
  return mappings;
}

/// With overlap, the ways in which so many ranks may share the experts: over ep, over etp, and
/// both.
inline std::vector<ParallelConfig> overlapping_spreads(int ranks) {
  std::vector<ParallelConfig> all;
  for (const auto& [etp, ep] :
       {std::pair{1, ranks}, std::pair{ranks, 1}, std::pair{2, ranks / 2}}) {
    ParallelConfig parallel;
    parallel.etp = etp;
    parallel.ep = ep;
    parallel.overlap_ep = true;
    if (etp * ep == ranks && (etp != 2 || ep > 1 || ranks == 2)) all.push_back(parallel);
  }
  return all;
}

/// The tokens of all ranks in one order, by window, and which of them a rank has.
class MoeTokens {
 public:
  MoeTokens(const MoeCase& wanted, const RankGrids& grids) : wanted_(wanted), grids_(grids) {
    const int dp = grids.dense.size("dp");
    for (int i = 0; i < dp; ++i) first_windows_.push_back(first_windows_.back() + windows_of(i));
  }

  int windows() const { return first_windows_.back(); }
  int tokens() const { return windows() * kWindowTokens; }
  std::vector<int> offsets() const {
    std::vector<int> offsets;
    for (int w = 0; w <= windows(); ++w) offsets.push_back(w * kWindowTokens);
    return offsets;
  }

  /// Tokens of a rank, and where its windows begin among them.
  std::vector<int> tokens_of(int rank) const {
    std::vector<int> tokens;
    walk(rank, [&](int first, int last) {
      for (int t = first; t < last; ++t) tokens.push_back(t);
    });
    return tokens;
  }
  /// Of the first window that a rank has a part of.
  int first_token_of(int rank) const {
    return first_windows_[static_cast<std::size_t>(grids_.dense.coordinate(rank, "dp"))] *
           kWindowTokens;
  }
  /// Of all tokens, and of those of a rank, the places in their windows.
  std::vector<int> all_places() const {
    std::vector<int> places;
    for (int t = 0; t < tokens(); ++t) places.push_back(t % kWindowTokens);
    return places;
  }
  std::vector<int> places_of(int rank) const {
    std::vector<int> places = tokens_of(rank);
    for (int& place : places) place %= kWindowTokens;
    return places;
  }
  std::vector<int> offsets_of(int rank) const {
    std::vector<int> offsets{0};
    walk(rank, [&](int first, int last) { offsets.push_back(offsets.back() + last - first); });
    return offsets;
  }

 private:
  int windows_of(int dp) const { return wanted_.windows_of(dp); }

  /// visit(first, last) for the part of each window of a rank.
  template <typename Visit> void walk(int rank, Visit&& visit) const {
    const std::vector<int> members = grids_.dense.members(rank, {"tp", "cp"});
    const auto place = std::find(members.begin(), members.end(), rank) - members.begin();
    const int dp = grids_.dense.coordinate(rank, "dp");
    for (int w = 0; w < windows_of(dp); ++w) {
      std::vector<int> sums{0};
      for (std::size_t i = 0; i < members.size(); ++i) {
        const std::size_t share = (i + static_cast<std::size_t>(w)) % wanted_.shares.size();
        sums.push_back(sums.back() + wanted_.shares[share]);
      }
      const int all = std::max(1, sums.back());
      if (sums.back() == 0) sums.back() = 1;  // the last rank has all of this window
      const int begin = (first_windows_[static_cast<std::size_t>(dp)] + w) * kWindowTokens;
      visit(begin + sums[static_cast<std::size_t>(place)] * kWindowTokens / all,
            begin + sums[static_cast<std::size_t>(place) + 1] * kWindowTokens / all);
    }
  }

  MoeCase wanted_;
  const RankGrids& grids_;
  std::vector<int> first_windows_{0};  ///< of each rank of dp
};

}  // namespace konclave
