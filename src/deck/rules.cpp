#include "deck/rules.hpp"

#include "parallel/rank_grids.hpp"

#include <algorithm>
#include <limits>

namespace konclave::deck {
namespace {

bool is_multiple(std::int64_t a, std::int64_t b) { return b > 0 && a % b == 0; }

bool has_dense_layer(const MoeConfig& moe) {
  return moe.num_experts == 0 || std::find(moe.layer_frequency.begin(), moe.layer_frequency.end(),
                                           0) != moe.layer_frequency.end();
}

/// Kinds of balancing that are losses and so have a coefficient.
std::size_t count_losses(const MoeConfig& moe) {
  return moe.balancing.size() -
         static_cast<std::size_t>(
             std::count(moe.balancing.begin(), moe.balancing.end(), std::string("none")));
}

bool needs_old_length(const RopeScaling& scaling) {
  return scaling.type == "llama3" || scaling.type == "yarn";
}

void declare_attention_rules(Schema& schema, const ModelConfig& model) {
  schema.rule(DeckUse::model, {"model.num_heads", "model.num_kv_heads"},
              "model.num_heads must be a multiple of model.num_kv_heads",
              [&] { return is_multiple(model.num_heads, model.kv_heads()); });
  schema.rule(
      DeckUse::model, {"model.hidden_size", "model.num_heads", "model.head_dim"},
      "without model.head_dim, model.hidden_size must be a multiple of model.num_heads",
      [&] { return model.head_dim > 0 || is_multiple(model.hidden_size, model.num_heads); });
  schema.rule(DeckUse::model, {"model.head_dim", "model.hidden_size", "model.num_heads"},
              "the size of a head must be even, because the rotary embedding turns pairs",
              [&] { return model.head_size() % 2 == 0; });

  const RopeScaling& scaling = model.rope_scaling;
  schema.rule(DeckUse::model,
              {"model.rope_scaling.original_max_position_embeddings", "model.rope_scaling.type"},
              "llama3 and yarn need model.rope_scaling.original_max_position_embeddings", [&] {
                return !needs_old_length(scaling) || scaling.original_max_position_embeddings > 0;
              });
  schema.rule(DeckUse::model,
              {"model.rope_scaling.low_freq_factor", "model.rope_scaling.high_freq_factor"},
              "model.rope_scaling.low_freq_factor must be below "
              "model.rope_scaling.high_freq_factor",
              [&] { return scaling.low_freq_factor < scaling.high_freq_factor; });
  schema.rule(DeckUse::model, {"model.rope_scaling.beta_slow", "model.rope_scaling.beta_fast"},
              "model.rope_scaling.beta_slow must be below model.rope_scaling.beta_fast",
              [&] { return scaling.beta_slow < scaling.beta_fast; });
}

void declare_layer_rules(Schema& schema, const ModelConfig& model, const MoeConfig& moe) {
  schema.rule(DeckUse::model, {"moe.layer_frequency", "model.num_layers"},
              "a list moe.layer_frequency must have model.num_layers entries", [&] {
                return moe.layer_frequency.size() == static_cast<std::size_t>(model.num_layers);
              });
  schema.rule(DeckUse::model, {"moe.layer_frequency", "moe.num_experts", "model.num_layers"},
              "with experts, moe.layer_frequency must leave at least one MoE layer", [&] {
                return moe.num_experts == 0 ||
                       std::find(moe.layer_frequency.begin(), moe.layer_frequency.end(), 1) !=
                           moe.layer_frequency.end();
              });
  schema.rule(DeckUse::model, {"model.ffn_hidden_size", "moe.num_experts", "moe.layer_frequency"},
              "dense layers need model.ffn_hidden_size",
              [&] { return model.ffn_hidden_size > 0 || !has_dense_layer(moe); });
  schema.rule(DeckUse::model, {"moe.ffn_hidden_size", "moe.num_experts"},
              "experts need moe.ffn_hidden_size",
              [&] { return moe.num_experts == 0 || moe.ffn_hidden_size > 0; });
}

void declare_router_rules(Schema& schema, const MoeConfig& moe) {
  schema.rule(DeckUse::model, {"moe.top_k", "moe.num_experts"},
              "moe.top_k must not exceed moe.num_experts",
              [&] { return moe.num_experts == 0 || moe.top_k <= moe.num_experts; });
  schema.rule(DeckUse::train, {"moe.top_k", "moe.pre_softmax"},
              "training with moe.top_k = 1 needs moe.pre_softmax = true: a softmax over the one "
              "chosen expert is constant 1, and the router would get no gradient",
              [&] { return moe.num_experts == 0 || moe.top_k > 1 || moe.pre_softmax; });
  schema.rule(DeckUse::model, {"moe.balancing"}, "\"none\" in moe.balancing must stand alone",
              [&] { return count_losses(moe) == 0 || count_losses(moe) == moe.balancing.size(); });
  schema.rule(DeckUse::model, {"moe.aux_loss_coefficients", "moe.balancing"},
              "moe.aux_loss_coefficients must have one coefficient for each loss that "
              "moe.balancing lists",
              [&] { return moe.aux_loss_coefficients.size() == count_losses(moe); });
}

void declare_parallel_rules(Schema& schema, const ParallelConfig& parallel, const MoeConfig& moe) {
  schema.rule(DeckUse::model, {"moe.num_experts", "parallel.ep"},
              "moe.num_experts must be a multiple of parallel.ep",
              [&] { return is_multiple(moe.num_experts, parallel.ep); });
  schema.rule(DeckUse::model, {"parallel.ep", "moe.num_experts"},
              "parallel.ep above 1 needs experts, moe.num_experts above 0",
              [&] { return parallel.ep == 1 || moe.num_experts > 0; });
  schema.rule(
      DeckUse::train, {"parallel.order", "parallel.ep"},
      "parallel.order must name every axis larger than 1: ep and dp when parallel.ep is above 1",
      [&] { return order_fault(parallel, smallest_ranks(parallel)).empty(); });
}

void declare_batch_rules(Schema& schema, const Deck& deck) {
  const BatchConfig& batch = deck.batch;
  const MoeConfig& moe = deck.definition.moe;
  schema.rule(DeckUse::train, {"batch.global_size", "batch.micro_size"},
              "batch.global_size must be a multiple of batch.micro_size",
              [&] { return is_multiple(batch.global_size, batch.micro_size); });
  schema.rule(DeckUse::train, {"batch.micro_size", "moe.window"},
              "batch.micro_size must be a multiple of moe.window", [&] {
                return moe.num_experts == 0 || moe.window == 0 ||
                       is_multiple(batch.micro_size, moe.window);
              });
  schema.rule(
      DeckUse::train, {"batch.micro_size", "model.sequence_length"},
      "a micro-batch, batch.micro_size * model.sequence_length, must stay below 2^31 tokens", [&] {
        return std::int64_t{batch.micro_size} * deck.definition.model.sequence_length <=
               std::numeric_limits<int>::max();
      });
}

void declare_optimizer_rules(Schema& schema, const Deck& deck) {
  const OptimizerConfig& optimizer = deck.optimizer;
  const RunConfig& run = deck.run;
  schema.rule(DeckUse::train, {"optimizer.min_lr", "optimizer.lr"},
              "optimizer.min_lr must not exceed optimizer.lr",
              [&] { return optimizer.min_lr <= optimizer.lr; });
  schema.rule(DeckUse::train, {"optimizer.warmup_steps", "run.steps"},
              "optimizer.warmup_steps must not exceed run.steps",
              [&] { return optimizer.warmup_steps <= run.steps; });
  schema.rule(
      DeckUse::train,
      {"optimizer.decay_steps", "optimizer.warmup_steps", "optimizer.schedule", "run.steps"},
      "with schedule \"wsd\", optimizer.warmup_steps + optimizer.decay_steps must not "
      "exceed run.steps",
      [&] {
        return optimizer.schedule != "wsd" ||
               optimizer.warmup_steps + optimizer.decay_steps <= run.steps;
      });
}

void declare_data_rules(Schema& schema, const Deck& deck) {
  schema.rule(DeckUse::train, {"model.vocab_size", "data.kind", "data.tokenizer"},
              "text as bytes needs model.vocab_size of at least 256", [&] {
                return deck.data.kind != "text" || deck.data.tokenizer != "bytes" ||
                       deck.definition.model.vocab_size >= 256;
              });
  schema.rule(
      DeckUse::train, {"eval.interval", "data.kind", "data.split"},
      "validation (eval.interval above 0) needs held-out text: data.kind = \"text\" and "
      "data.split below 1",
      [&] { return deck.eval.interval == 0 || (deck.data.kind == "text" && deck.data.split < 1); });
  schema.rule(DeckUse::train, {"log.sample_prompt", "data.kind"},
              "log.sample_prompt needs data.kind = \"text\": tokens of other data have no spelling",
              [&] { return deck.log.sample_prompt.empty() || deck.data.kind == "text"; });
  schema.rule(DeckUse::train, {"checkpoint.keep_every", "checkpoint.interval"},
              "checkpoint.keep_every must be a multiple of checkpoint.interval", [&] {
                return deck.checkpoint.keep_every == 0 ||
                       is_multiple(deck.checkpoint.keep_every, deck.checkpoint.interval);
              });
}

}  // namespace

void declare_rules(Schema& schema, const Deck& deck) {
  declare_attention_rules(schema, deck.definition.model);
  declare_layer_rules(schema, deck.definition.model, deck.definition.moe);
  declare_router_rules(schema, deck.definition.moe);
  declare_parallel_rules(schema, deck.parallel, deck.definition.moe);
  declare_batch_rules(schema, deck);
  declare_optimizer_rules(schema, deck);
  declare_data_rules(schema, deck);
}

}  // namespace konclave::deck
