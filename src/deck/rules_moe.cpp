#include "deck/alternatives.hpp"
#include "deck/rule_parts.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace konclave::deck {
namespace {

/// Kinds of balancing that are losses and so have a coefficient.
std::size_t count_losses(const MoeConfig& moe) {
  return static_cast<std::size_t>(
      std::count_if(moe.balancing.begin(), moe.balancing.end(),
                    [](const std::string& kind) { return kind != "none" && kind != "sinkhorn"; }));
}

void declare_shared_rules(Schema& schema, const MoeConfig& moe) {
  add_rule(
      schema, RuleScope::always, {"moe.shared_ffn_hidden_size", "moe.num_experts"},
      "moe.shared_ffn_hidden_size above 0 needs experts beside it, moe.num_experts above 0",
      [&] { return moe.shared_ffn_hidden_size == 0 || moe.num_experts > 0; },
      [] { return std::string("moe.shared_ffn_hidden_size = 0"); });
  add_rule(
      schema, RuleScope::always, {"moe.shared_gate", "moe.shared_ffn_hidden_size"},
      "moe.shared_gate = true needs shared experts, moe.shared_ffn_hidden_size above 0",
      [&] { return !moe.shared_gate || moe.shared_ffn_hidden_size > 0; },
      [&] {
        return fmt::format("moe.shared_ffn_hidden_size = {}, or moe.shared_gate = false",
                           std::max(1, moe.ffn_hidden_size));
      });
}

void declare_router_rules(Schema& schema, const MoeConfig& moe) {
  add_rule(
      schema, RuleScope::always, {"moe.top_k", "moe.num_experts"},
      "moe.top_k must not exceed moe.num_experts",
      [&] { return moe.num_experts == 0 || moe.top_k <= moe.num_experts; },
      [&] { return fmt::format("moe.top_k = {} or less", moe.num_experts); });
  add_rule(
      schema, RuleScope::training, {"moe.top_k", "moe.pre_softmax", "moe.score_function"},
      "training with moe.top_k = 1 needs moe.pre_softmax = true or moe.score_function = "
      "\"sigmoid\": a softmax over the one chosen expert is constant 1, and the router would get "
      "no gradient",
      [&] {
        return moe.num_experts == 0 || moe.top_k > 1 || moe.pre_softmax ||
               moe.balances_by("sinkhorn") || moe.score_function == "sigmoid";
      },
      [] { return std::string("moe.pre_softmax = true, or moe.top_k = 2"); });
  add_rule(
      schema, RuleScope::always, {"moe.pre_softmax", "moe.score_function"},
      "moe.pre_softmax = true needs moe.score_function = \"softmax\"",
      [&] { return !moe.pre_softmax || moe.score_function == "softmax"; },
      [] { return std::string("moe.pre_softmax = false"); });
  add_rule(
      schema, RuleScope::always, {"moe.balancing"},
      "\"none\" and \"sinkhorn\" in moe.balancing must stand alone",
      [&] { return moe.balancing.size() == 1 || count_losses(moe) == moe.balancing.size(); },
      [] { return std::string("moe.balancing = \"none\", \"sinkhorn\" or \"aux_loss\""); });
  add_rule(
      schema, RuleScope::always,
      {"moe.balancing", "moe.score_function", "moe.num_groups", "moe.expert_bias"},
      "moe.balancing = \"sinkhorn\" chooses by its plan, so moe.score_function must be "
      "\"softmax\", "
      "without moe.num_groups and moe.expert_bias",
      [&] {
        return !moe.balances_by("sinkhorn") ||
               (moe.score_function == "softmax" && !moe.has_groups() && !moe.expert_bias);
      },
      [] { return std::string("moe.balancing = \"aux_loss\""); });
  add_rule(
      schema, RuleScope::always, {"moe.aux_loss_coefficients", "moe.balancing"},
      "moe.aux_loss_coefficients must have one coefficient for each loss that moe.balancing lists",
      [&] { return moe.aux_loss_coefficients.size() == count_losses(moe); },
      [&] {
        return fmt::format("{} instead of {}", count_losses(moe), moe.aux_loss_coefficients.size());
      });
  add_rule(
      schema, RuleScope::always, {"moe.global_aux_counts", "moe.balancing"},
      "moe.global_aux_counts = \"running\" needs \"global_aux_loss\" in moe.balancing, which alone "
      "goes by it",
      [&] { return moe.global_aux_counts == "previous" || moe.balances_by("global_aux_loss"); },
      [] { return std::string("moe.global_aux_counts = \"previous\""); });
  add_rule(
      schema, RuleScope::always, {"moe.force_bias", "moe.force_load_balancing"},
      "moe.force_bias other than 0 needs moe.force_load_balancing = true",
      [&] { return moe.force_bias == 0 || moe.force_load_balancing; },
      [] { return std::string("moe.force_bias = 0, or moe.force_load_balancing = true"); });
  add_rule(
      schema, RuleScope::always, {"moe.replay", "moe.num_experts"},
      "moe.replay needs experts, moe.num_experts above 0",
      [&] { return moe.replay.empty() || moe.num_experts > 0; },
      [] { return std::string("moe.replay = \"\""); });
  add_rule(
      schema, RuleScope::always, {"moe.replay", "moe.force_load_balancing", "moe.balancing"},
      "experts that moe.replay takes from a file are not chosen, so moe.force_load_balancing must "
      "be false, and moe.balancing not \"sinkhorn\"",
      [&] { return !moe.replays() || (!moe.force_load_balancing && !moe.balances_by("sinkhorn")); },
      [] { return std::string("moe.replay = \"\" or \"record\""); });
  add_rule(
      schema, RuleScope::always, {"moe.pad_to_capacity", "moe.capacity_factor"},
      "moe.pad_to_capacity = true needs a capacity, moe.capacity_factor above 0",
      [&] { return !moe.pad_to_capacity || moe.capacity_factor > 0; },
      [] { return std::string("moe.capacity_factor = 1.25"); });
  add_rule(
      schema, RuleScope::always, {"moe.capacity_factor", "moe.balancing"},
      "moe.balancing = \"sinkhorn\" plans evenly by itself, so moe.capacity_factor must be 0",
      [&] { return moe.capacity_factor == 0 || !moe.balances_by("sinkhorn"); },
      [] { return std::string("moe.capacity_factor = 0, or moe.balancing = \"aux_loss\""); });
  add_rule(
      schema, RuleScope::always, {"moe.dispatcher", "moe.receive_budget"},
      "moe.dispatcher = \"allgather\" moves all rows in one round, so moe.receive_budget must be 0",
      [&] { return moe.dispatcher != "allgather" || moe.receive_budget == 0; },
      [] { return std::string("moe.receive_budget = 0, or moe.dispatcher = \"alltoall\""); });
}

void declare_group_rules(Schema& schema, const MoeConfig& moe) {
  add_rule(
      schema, RuleScope::always, {"moe.num_groups", "moe.num_experts"},
      "moe.num_experts must be a multiple of moe.num_groups",
      [&] { return !moe.has_groups() || is_multiple(moe.num_experts, moe.num_groups); },
      [&] { return "moe.num_experts = " + multiples(moe.num_groups, moe.num_experts); });
  add_rule(
      schema, RuleScope::always, {"moe.group_top_k", "moe.num_groups"},
      "with groups of experts, moe.group_top_k must be 1 to moe.num_groups, and 0 without",
      [&] {
        return moe.group_top_k <= moe.num_groups && (!moe.has_groups() || moe.group_top_k >= 1);
      },
      [&] {
        return moe.has_groups() ? fmt::format("1 to {}", moe.num_groups)
                                : std::string("moe.group_top_k = 0");
      });
  add_rule(
      schema, RuleScope::always, {"moe.group_top_k", "moe.top_k", "moe.num_groups"},
      "moe.group_top_k must not exceed moe.top_k: a group is chosen by its best moe.top_k / "
      "moe.group_top_k experts",
      [&] { return !moe.has_groups() || moe.group_top_k <= moe.top_k; },
      [&] { return fmt::format("moe.group_top_k = {} or less", moe.top_k); });
  add_rule(
      schema, RuleScope::always,
      {"moe.top_k", "moe.group_top_k", "moe.num_groups", "moe.num_experts"},
      "moe.top_k must not exceed the experts in moe.group_top_k of moe.num_groups groups",
      [&] {
        return moe.num_experts == 0 || !moe.has_groups() || moe.group_top_k == 0 ||
               moe.top_k <= moe.group_top_k * (moe.num_experts / moe.num_groups);
      },
      [&] {
        return fmt::format("moe.top_k = {} or less",
                           moe.group_top_k * (moe.num_experts / moe.num_groups));
      });
}

}  // namespace

void declare_moe_rules(Schema& schema, const MoeConfig& moe) {
  declare_shared_rules(schema, moe);
  declare_router_rules(schema, moe);
  declare_group_rules(schema, moe);
}

}  // namespace konclave::deck
