#include "deck/upcycling_rules.hpp"

#include "base/text.hpp"
#include "deck/alternatives.hpp"
#include "deck/rules.hpp"
#include "deck/schema.hpp"

#include <fmt/format.h>

#include <utility>
#include <vector>

namespace konclave::deck {
namespace {

using Faults = std::vector<std::string>;

/// Keys of [model] with their values.
std::vector<std::pair<std::string, std::string>> model_values(const ModelConfig& model) {
  Deck deck;
  const Schema schema(deck);
  deck.definition.model = model;
  std::vector<std::pair<std::string, std::string>> values;
  for (const Schema::Section& section : schema.sections()) {
    for (const Entry& entry : section.entries) {
      if (entry.key().starts_with("model.")) values.emplace_back(entry.key(), entry.form().write());
    }
  }
  return values;
}

/// What no tensor of the dense model depends on, nor what is computed with it.
bool may_differ(const std::string& key, const MoeConfig& moe) {
  return key == "model.sequence_length" || key == "model.init_std" ||
         (key == "model.ffn_hidden_size" && !has_dense_layer(moe));
}

/// A 0 that stands for the same as a number is not a difference.
void write_out(ModelConfig& a, ModelConfig& b) {
  if (a.num_kv_heads != b.num_kv_heads) {
    for (ModelConfig* model : {&a, &b}) model->num_kv_heads = model->kv_heads();
  }
  if (a.head_dim != b.head_dim) {
    for (ModelConfig* model : {&a, &b}) model->head_dim = model->head_size();
  }
}

void compare_models(ModelConfig dense, ModelConfig moe_model, const MoeConfig& moe,
                    Faults& faults) {
  write_out(dense, moe_model);
  const auto wanted = model_values(dense), given = model_values(moe_model);
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const auto& [key, value] = wanted[i];
    if (value == given[i].second || may_differ(key, moe)) continue;
    faults.push_back(fmt::format("{0} = {1} is {2} in the dense model; {0} = {2} would do", key,
                                 given[i].second, value));
  }
}

void check_sizes(const ModelDefinition& dense, const MoeConfig& moe, Faults& faults) {
  const int whole = dense.model.ffn_hidden_size, part = moe.ffn_hidden_size;
  if (whole % part != 0) {
    faults.push_back(
        fmt::format("moe.ffn_hidden_size = {} does not divide model.ffn_hidden_size = {} of the "
                    "dense model, whose slices the experts are; moe.ffn_hidden_size = {} would do",
                    part, whole, divisors(whole, part)));
    return;
  }
  const int slices = whole / part;
  const auto check = [&](const char* key, int value, const char* why) {
    if (value % slices == 0) return;
    faults.push_back(fmt::format(
        "{0} = {1} must be a multiple of {2}, the slices that moe.ffn_hidden_size = {3} cuts "
        "model.ffn_hidden_size = {4} of the dense model into, {5}; {0} = {6} would do",
        key, value, slices, part, whole, why, multiples(slices, value)));
  };
  check("moe.num_experts", moe.num_experts, "for the experts to be whole copies of its MLP");
  check("moe.top_k", moe.top_k, "for each token to have whole copies of its MLP");
  if (!moe.has_groups() || moe.num_experts % slices != 0) return;
  const int copies = moe.num_experts / slices;
  if (copies % moe.num_groups == 0) return;
  faults.push_back(fmt::format(
      "moe.num_groups = {} must divide the {} copies of the dense model's MLP that "
      "moe.num_experts = {} with moe.ffn_hidden_size = {} are, for a group to have whole ones; "
      "moe.num_groups = {} would do",
      moe.num_groups, copies, moe.num_experts, part, divisors(copies, moe.num_groups)));
}

void check_router(const MoeConfig& moe, Faults& faults) {
  if (moe.shared_ffn_hidden_size > 0) {
    faults.push_back(
        fmt::format("moe.shared_ffn_hidden_size = {}: the dense model has nothing that shared "
                    "experts could be made of; moe.shared_ffn_hidden_size = 0 would do",
                    moe.shared_ffn_hidden_size));
  }
  if (moe.balances_by("sinkhorn")) {
    faults.emplace_back(
        "moe.balancing = \"sinkhorn\" chooses by a plan for many tokens and weighs by scores that "
        "do not add up to 1, so no factor makes up for them; moe.balancing = \"aux_loss\" would "
        "do");
  }
  if (moe.score_function == "sigmoid" && moe.top_k == 1) {
    faults.emplace_back(
        "moe.score_function = \"sigmoid\" with moe.top_k = 1 weighs the one expert by its score, "
        "about 1/2, so it would not do what the dense model does; moe.top_k = 2 or "
        "moe.score_function = \"softmax\" would do");
  }
}

}  // namespace
}  // namespace konclave::deck

namespace konclave {

std::string upcycling_fault(const ModelDefinition& dense, const ModelDefinition& moe) {
  if (moe.num_moe_layers() == 0) {
    return "moe.num_experts = 0: the model to be made needs experts; moe.num_experts = 8 would do";
  }
  deck::Faults faults;
  deck::compare_models(dense.model, moe.model, moe.moe, faults);
  deck::check_sizes(dense, moe.moe, faults);
  deck::check_router(moe.moe, faults);
  return join(faults, "\n");
}

}  // namespace konclave
