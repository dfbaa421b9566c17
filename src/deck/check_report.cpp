#include "deck/check_report.hpp"

#include "base/text.hpp"
#include "deck/rank_map.hpp"
#include "deck/rank_rules.hpp"

#include <fmt/format.h>

#include <vector>

namespace konclave {
namespace {

std::string grouped(std::int64_t value) { return fmt::format("{}", fmt::group_digits(value)); }

std::string line(const std::string& name, const std::string& text) {
  return fmt::format("#   {:<24}{}\n", name, text);
}

std::string moe_layers(const ModelDefinition& definition) {
  std::vector<std::string> layers;
  for (int layer = 0; layer < definition.model.num_layers; ++layer) {
    if (definition.is_moe_layer(layer)) layers.push_back(std::to_string(layer));
  }
  const std::string count = fmt::format("{} of {}", layers.size(), definition.model.num_layers);
  const bool says_more =
      !layers.empty() && layers.size() < static_cast<std::size_t>(definition.model.num_layers);
  return says_more ? count + ": " + join(layers, " ") : count;
}

std::string memory_lines(const StateBytes& bytes) {
  std::string text = line("weights", format_bytes(bytes.weights));
  text += line("gradients", format_bytes(bytes.gradients));
  if (bytes.master_weights > 0) text += line("master weights", format_bytes(bytes.master_weights));
  text += line("optimizer moments", format_bytes(bytes.moments));
  return text + line("together", format_bytes(bytes.total()) + ", without activations");
}

/// What each rank does and holds, and which rank is where.
std::string ranks_report(const Deck& deck, const RankGrids& grids) {
  const int ranks = grids.ranks(), ep = grids.experts.size("ep");
  const std::int64_t parameters = count_parameters(deck.definition).on_a_rank(ep);
  const int experts = deck.definition.moe.num_experts;

  std::string text =
      ranks == 1 ? "\n# On one rank\n" : fmt::format("\n# On each of {} ranks\n", ranks);
  text += line("dp, ep, edp",
               fmt::format("{}, {}, {}", grids.dense.size("dp"), ep, grids.experts.size("edp")));
  text += line("micro-batches per step", grouped(micro_batches_per_rank(deck.batch, grids)));
  if (experts > 0)
    text += line("experts of a layer", fmt::format("{} of {}", experts / ep, experts));
  text += line("parameters", grouped(parameters));
  text += memory_lines(count_state_bytes(parameters, deck.definition.compute));
  return ranks == 1 ? text : text + "\n# Where each rank is\n" + rank_map(grids);
}

}  // namespace

ParameterCount count_parameters(const ModelDefinition& definition) {
  const ModelConfig& model = definition.model;
  const MoeConfig& moe = definition.moe;
  const std::int64_t hidden = model.hidden_size;
  const std::int64_t head = model.head_size();
  const std::int64_t queries = model.num_heads * head;
  const std::int64_t keys = model.kv_heads() * head;
  const std::int64_t attention = 2 * hidden * (queries + keys) +
                                 (model.qkv_bias ? queries + 2 * keys : 0) +
                                 (model.qk_norm ? 2 * head : 0);
  const std::int64_t dense = 3 * hidden * model.ffn_hidden_size;
  const std::int64_t expert = 3 * hidden * moe.ffn_hidden_size;
  const std::int64_t router = hidden * moe.num_experts;
  const std::int64_t tables = model.tie_embeddings ? 1 : 2;

  ParameterCount count;
  count.total = tables * model.vocab_size * hidden + hidden;
  count.active = count.total;
  for (int layer = 0; layer < model.num_layers; ++layer) {
    const bool is_moe = definition.is_moe_layer(layer);
    const std::int64_t common = attention + 2 * hidden + (is_moe ? router : dense);
    count.total += common + (is_moe ? moe.num_experts * expert : 0);
    count.active += common + (is_moe ? moe.top_k * expert : 0);
    count.experts += is_moe ? moe.num_experts * expert : 0;
  }
  return count;
}

StateBytes count_state_bytes(std::int64_t parameters, DType compute) {
  const auto size = [&](DType type) {
    return parameters * static_cast<std::int64_t>(size_of(type));
  };
  const DType wide = accum_type(compute);
  return {size(compute), size(wide), compute == wide ? 0 : size(wide), 2 * size(wide)};
}

std::string check_report(const Deck& deck, int ranks) {
  const RankGrids grids = place_ranks(deck, ranks);
  const ModelDefinition& definition = deck.definition;
  const ParameterCount parameters = count_parameters(definition);
  const std::int64_t step_tokens =
      std::int64_t{deck.batch.global_size} * definition.model.sequence_length;

  std::string text = effective_deck(deck) + "\n# What follows from it\n";
  text += line("parameters", grouped(parameters.total));
  text += line("active for a token", grouped(parameters.active));
  text += line("attention heads",
               fmt::format("{} of size {}, {} of keys and values", definition.model.num_heads,
                           definition.model.head_size(), definition.model.kv_heads()));
  text += line("MoE layers", moe_layers(definition));
  text += line("tokens per step", grouped(step_tokens));
  text += line("tokens in all", grouped(step_tokens * deck.run.steps));
  return text + ranks_report(deck, grids);
}

}  // namespace konclave
