#include "deck/check_report.hpp"

#include "base/text.hpp"
#include "deck/rank_map.hpp"
#include "deck/rank_rules.hpp"
#include "deck/schedule_report.hpp"
#include "model/expected_traffic.hpp"
#include "parallel/pipeline_layout.hpp"

#include <fmt/format.h>

#include <algorithm>
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

/// What each stage of a pipeline has, its chunks apart from each other.
std::string stages_report(const PipelineLayout& layout) {
  constexpr int kMostShown = 32;
  std::string text = layout.chunks() == 1 ? "\n# What each stage has\n"
                                          : "\n# What each stage has, chunk | chunk\n";
  for (int stage = 0; stage < std::min(layout.stages(), kMostShown); ++stage) {
    text += line(fmt::format("stage {}", stage), describe_stage(layout, stage));
  }
  const int more = layout.stages() - kMostShown;
  return more > 0 ? text + line("...", fmt::format("{} more", more)) : text;
}

/// The stage whose ranks have most parameters, the first of such.
int largest_stage(const Deck& deck) {
  int largest = 0;
  std::int64_t most = 0;
  for (int stage = 0; stage < deck.parallel.pp; ++stage) {
    const std::int64_t here =
        count_parameters_of_stage(deck.definition, deck.parallel, stage).total();
    if (here > most) most = here, largest = stage;
  }
  return largest;
}

std::string experts_text(const Deck& deck) {
  const int experts = deck.definition.moe.num_experts, etp = deck.parallel.etp;
  const std::string count = fmt::format("{} of {}", experts / deck.parallel.ep, experts);
  return etp == 1 ? count : fmt::format("{}, of each 1 / {}", count, etp);
}

std::string sizes_text(const Grid& grid, const std::vector<const char*>& axes) {
  std::vector<std::string> sizes;
  for (const char* axis : axes) sizes.push_back(std::to_string(grid.size(axis)));
  return join(sizes, ", ");
}

/// Nothing on one rank.
std::string traffic_report(const Deck& deck, int ranks) {
  const ExpectedTraffic traffic =
      expected_traffic({deck.definition, deck.parallel, ranks, deck.batch.global_size,
                        deck.batch.micro_size, deck.recompute});
  const auto groups =
      describe_traffic(bytes_of_groups(traffic.least), bytes_of_groups(traffic.most));
  std::string text;
  for (const auto& [group, bytes] : groups) text += line(group, bytes);
  return text.empty() ? "" : "\n# Communication per step, all ranks together\n" + text;
}

/// What each rank does and holds, and which rank is where.
std::string ranks_report(const Deck& deck, const RankGrids& grids) {
  const int ranks = grids.ranks(), stages = deck.parallel.pp, stage = largest_stage(deck);
  const StageParameters parameters =
      count_parameters_of_stage(deck.definition, deck.parallel, stage);
  const std::int64_t owned = count_owned_parameters(parameters, deck.parallel, ranks);
  const PipelineShape shape = make_pipeline_shape(deck, grids);

  std::string text =
      ranks == 1 ? "\n# On one rank\n" : fmt::format("\n# On each of {} ranks\n", ranks);
  text += line("tp, cp, dp, pp", sizes_text(grids.dense, {"tp", "cp", "dp", "pp"}));
  text += line("etp, ep, edp, pp", sizes_text(grids.experts, {"etp", "ep", "edp", "pp"}));
  text += line("micro-batches per step", grouped(shape.micro_batches));
  if (deck.definition.moe.num_experts > 0) text += line("experts of a layer", experts_text(deck));
  text += line("parameters",
               grouped(parameters.total()) +
                   (stages == 1 ? "" : fmt::format(" on stage {}, which has most", stage)));
  if (deck.parallel.distributed_optimizer) text += line("with optimizer state", grouped(owned));
  text += memory_lines(
      count_state_bytes(parameters.total(), owned, deck.definition.compute, deck.optimizer));
  if (stages > 1) {
    text += stages_report(make_pipeline_layout(deck.parallel, deck.definition.model.num_layers));
  }
  text += traffic_report(deck, ranks);
  return ranks == 1 ? text : text + "\n# Where each rank is\n" + rank_map(grids);
}

/// Parameters by kind, of a model or of what a rank has of it.
struct Sizes {
  std::int64_t table, last_norm, attention, norms, dense, router, shared, expert;
};

/// With `parallel` of ones: of the whole model.
Sizes sizes_on_a_rank(const ModelDefinition& definition, const ParallelConfig& parallel) {
  const ModelConfig& model = definition.model;
  const MoeConfig& moe = definition.moe;
  const std::int64_t hidden = model.hidden_size, head = model.head_size(), tp = parallel.tp;
  const std::int64_t queries = model.num_heads / tp * head;
  const std::int64_t keys = std::max<std::int64_t>(1, model.kv_heads() / tp) * head;
  Sizes sizes{};
  sizes.table = (model.vocab_size + tp - 1) / tp * hidden;
  sizes.last_norm = hidden;
  sizes.attention = 2 * hidden * (queries + keys) + (model.qkv_bias ? queries + 2 * keys : 0) +
                    (model.qk_norm ? 2 * head : 0);
  sizes.norms = 2 * hidden;
  sizes.dense = 3 * hidden * (model.ffn_hidden_size / tp);
  sizes.router = hidden * moe.num_experts;
  sizes.shared = 3 * hidden * (moe.shared_ffn_hidden_size / tp) + (moe.shared_gate ? hidden : 0);
  sizes.expert = 3 * hidden * (moe.ffn_hidden_size / parallel.etp);
  return sizes;
}

/// Adds one layer with so many experts.
void add_layer(const Sizes& sizes, bool is_moe, int experts, StageParameters& to) {
  to.parted += sizes.attention + (is_moe ? sizes.shared : sizes.dense);
  to.replicated += sizes.norms + (is_moe ? sizes.router : 0);
  if (is_moe) to.routed += experts * sizes.expert;
}

}  // namespace

ParameterCount count_parameters(const ModelDefinition& definition) {
  const Sizes sizes = sizes_on_a_rank(definition, {});
  const int tables = definition.model.tie_embeddings ? 1 : 2;

  StageParameters all, active;
  all.parted = tables * sizes.table + sizes.last_norm;
  active = all;
  for (int layer = 0; layer < definition.model.num_layers; ++layer) {
    const bool is_moe = definition.is_moe_layer(layer);
    add_layer(sizes, is_moe, definition.moe.num_experts, all);
    add_layer(sizes, is_moe, definition.moe.top_k, active);
  }
  return {all.total(), active.total()};
}

StageParameters count_parameters_of_stage(const ModelDefinition& definition,
                                          const ParallelConfig& parallel, int stage) {
  const Sizes sizes = sizes_on_a_rank(definition, parallel);
  const int experts = definition.moe.num_experts / parallel.ep;
  const PipelineLayout layout = make_pipeline_layout(parallel, definition.model.num_layers);

  StageParameters count;
  for (int chunk = 0; chunk < layout.chunks(); ++chunk) {
    const ModelPart& part = layout.part(stage, chunk);
    const bool is_shared = definition.model.tie_embeddings && layout.stages() == 1;
    if (part.embedding) count.parted += sizes.table;
    if (part.head) count.replicated += sizes.last_norm;
    if (part.head && !is_shared) count.parted += sizes.table;
    for (int layer = part.first_layer; layer < part.first_layer + part.layers; ++layer) {
      add_layer(sizes, definition.is_moe_layer(layer), experts, count);
    }
  }
  return count;
}

std::int64_t count_owned_parameters(const StageParameters& parameters,
                                    const ParallelConfig& parallel, int ranks) {
  if (!parallel.distributed_optimizer) return parameters.total();
  const std::int64_t of_layer = ranks / parallel.pp;
  const auto share = [](std::int64_t count, std::int64_t owners) {
    return (count + owners - 1) / owners;
  };
  return share(parameters.parted, of_layer / parallel.tp) +
         share(parameters.replicated, parallel.sp ? of_layer : of_layer / parallel.tp) +
         share(parameters.routed, of_layer / (parallel.etp * parallel.ep));
}

StateBytes count_state_bytes(std::int64_t parameters, std::int64_t owned, DType compute,
                             const OptimizerConfig& optimizer) {
  const auto size = [](DType type) { return static_cast<std::int64_t>(size_of(type)); };
  const DType wide = accum_type(compute);
  const DType of_moments = optimizer.moments == "bf16" ? DType::bf16 : wide;
  return {parameters * size(compute), parameters * size(wide),
          compute == wide ? 0 : owned * size(wide), 2 * owned * size(of_moments)};
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
