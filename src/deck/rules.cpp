#include "deck/rules.hpp"

#include "deck/alternatives.hpp"
#include "deck/rule_parts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>

namespace konclave::deck {
namespace {

bool needs_old_length(const RopeScaling& scaling) {
  return scaling.type == "llama3" || scaling.type == "yarn";
}

void declare_attention_rules(Schema& schema, const ModelConfig& model) {
  add_rule(
      schema, RuleScope::always, {"model.num_heads", "model.num_kv_heads"},
      "model.num_heads must be a multiple of model.num_kv_heads",
      [&] { return is_multiple(model.num_heads, model.kv_heads()); },
      [&] { return "model.num_kv_heads = " + divisors(model.num_heads, model.kv_heads()); });
  add_rule(
      schema, RuleScope::always, {"model.hidden_size", "model.num_heads", "model.head_dim"},
      "without model.head_dim, model.hidden_size must be a multiple of model.num_heads",
      [&] { return model.head_dim > 0 || is_multiple(model.hidden_size, model.num_heads); },
      [&] { return "model.hidden_size = " + multiples(2 * model.num_heads, model.hidden_size); });
  add_rule(
      schema, RuleScope::always, {"model.head_dim", "model.hidden_size", "model.num_heads"},
      "the size of a head must be even, because the rotary embedding turns pairs",
      [&] { return model.head_size() % 2 == 0; },
      [&] { return "model.head_dim = " + multiples(2, model.head_size()); });

  const RopeScaling& scaling = model.rope_scaling;
  add_rule(
      schema, RuleScope::always,
      {"model.rope_scaling.original_max_position_embeddings", "model.rope_scaling.type"},
      "llama3 and yarn need model.rope_scaling.original_max_position_embeddings",
      [&] { return !needs_old_length(scaling) || scaling.original_max_position_embeddings > 0; },
      [] { return std::string("a number above 0, or model.rope_scaling.type = \"linear\""); });
  add_rule(
      schema, RuleScope::always,
      {"model.rope_scaling.low_freq_factor", "model.rope_scaling.high_freq_factor"},
      "model.rope_scaling.low_freq_factor must be below model.rope_scaling.high_freq_factor",
      [&] { return scaling.low_freq_factor < scaling.high_freq_factor; },
      [&] { return fmt::format("a low one of {}", scaling.high_freq_factor / 2); });
  add_rule(
      schema, RuleScope::always, {"model.rope_scaling.beta_slow", "model.rope_scaling.beta_fast"},
      "model.rope_scaling.beta_slow must be below model.rope_scaling.beta_fast",
      [&] { return scaling.beta_slow < scaling.beta_fast; },
      [&] { return fmt::format("a slow one of {}", scaling.beta_fast / 2); });
}

void declare_layer_rules(Schema& schema, const ModelConfig& model, const MoeConfig& moe) {
  add_rule(
      schema, RuleScope::always, {"moe.layer_frequency", "model.num_layers"},
      "a list moe.layer_frequency must have model.num_layers entries",
      [&] { return moe.layer_frequency.size() == static_cast<std::size_t>(model.num_layers); },
      [&] {
        return fmt::format("{} entries instead of {}, or an integer", model.num_layers,
                           moe.layer_frequency.size());
      });
  add_rule(
      schema, RuleScope::always, {"moe.layer_frequency", "moe.num_experts", "model.num_layers"},
      "with experts, moe.layer_frequency must leave at least one MoE layer",
      [&] {
        return moe.num_experts == 0 ||
               std::find(moe.layer_frequency.begin(), moe.layer_frequency.end(), 1) !=
                   moe.layer_frequency.end();
      },
      [] { return std::string("moe.layer_frequency = 1, or moe.num_experts = 0"); });
  add_rule(
      schema, RuleScope::always,
      {"model.ffn_hidden_size", "moe.num_experts", "moe.layer_frequency"},
      "dense layers need model.ffn_hidden_size",
      [&] { return model.ffn_hidden_size > 0 || !has_dense_layer(moe); },
      [&] {
        const std::string size =
            fmt::format("model.ffn_hidden_size = {}", 4 * std::int64_t{model.hidden_size});
        return moe.num_experts == 0 ? size : size + ", or moe.layer_frequency = 1";
      });
  add_rule(
      schema, RuleScope::always, {"moe.ffn_hidden_size", "moe.num_experts"},
      "experts need moe.ffn_hidden_size",
      [&] { return moe.num_experts == 0 || moe.ffn_hidden_size > 0; },
      [&] { return fmt::format("moe.ffn_hidden_size = {}", model.hidden_size); });
}

}  // namespace

void add_rule(Schema& schema, RuleScope scope, std::vector<std::string> keys, std::string sentence,
              std::function<bool()> holds, std::function<std::string()> remedy) {
  schema.rule(scope, std::move(keys), std::move(sentence),
              [holds = std::move(holds), remedy = std::move(remedy)] {
                return holds() ? "" : remedy() + " would do";
              });
}

bool has_dense_layer(const MoeConfig& moe) {
  return moe.num_experts == 0 || std::find(moe.layer_frequency.begin(), moe.layer_frequency.end(),
                                           0) != moe.layer_frequency.end();
}

void declare_rules(Schema& schema, const Deck& deck) {
  declare_attention_rules(schema, deck.definition.model);
  declare_layer_rules(schema, deck.definition.model, deck.definition.moe);
  declare_moe_rules(schema, deck.definition.moe);
  declare_training_rules(schema, deck);
}

}  // namespace konclave::deck
