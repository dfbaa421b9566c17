#include "deck/rules.hpp"

#include "deck/alternatives.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>

namespace konclave::deck {
namespace {

bool is_multiple(std::int64_t a, std::int64_t b) { return b > 0 && a % b == 0; }

/// Kinds of balancing that are losses and so have a coefficient.
std::size_t count_losses(const MoeConfig& moe) {
  return static_cast<std::size_t>(
      std::count_if(moe.balancing.begin(), moe.balancing.end(),
                    [](const std::string& kind) { return kind != "none" && kind != "sinkhorn"; }));
}

bool needs_old_length(const RopeScaling& scaling) {
  return scaling.type == "llama3" || scaling.type == "yarn";
}

/// A rule that holds or not, and what would do instead.
void add(Schema& schema, RuleScope scope, std::vector<std::string> keys, std::string sentence,
         std::function<bool()> holds, std::function<std::string()> remedy) {
  schema.rule(scope, std::move(keys), std::move(sentence),
              [holds = std::move(holds), remedy = std::move(remedy)] {
                return holds() ? "" : remedy() + " would do";
              });
}

void declare_attention_rules(Schema& schema, const ModelConfig& model) {
  add(
      schema, RuleScope::always, {"model.num_heads", "model.num_kv_heads"},
      "model.num_heads must be a multiple of model.num_kv_heads",
      [&] { return is_multiple(model.num_heads, model.kv_heads()); },
      [&] { return "model.num_kv_heads = " + divisors(model.num_heads, model.kv_heads()); });
  add(
      schema, RuleScope::always, {"model.hidden_size", "model.num_heads", "model.head_dim"},
      "without model.head_dim, model.hidden_size must be a multiple of model.num_heads",
      [&] { return model.head_dim > 0 || is_multiple(model.hidden_size, model.num_heads); },
      [&] { return "model.hidden_size = " + multiples(2 * model.num_heads, model.hidden_size); });
  add(
      schema, RuleScope::always, {"model.head_dim", "model.hidden_size", "model.num_heads"},
      "the size of a head must be even, because the rotary embedding turns pairs",
      [&] { return model.head_size() % 2 == 0; },
      [&] { return "model.head_dim = " + multiples(2, model.head_size()); });

  const RopeScaling& scaling = model.rope_scaling;
  add(
      schema, RuleScope::always,
      {"model.rope_scaling.original_max_position_embeddings", "model.rope_scaling.type"},
      "llama3 and yarn need model.rope_scaling.original_max_position_embeddings",
      [&] { return !needs_old_length(scaling) || scaling.original_max_position_embeddings > 0; },
      [] { return std::string("a number above 0, or model.rope_scaling.type = \"linear\""); });
  add(
      schema, RuleScope::always,
      {"model.rope_scaling.low_freq_factor", "model.rope_scaling.high_freq_factor"},
      "model.rope_scaling.low_freq_factor must be below model.rope_scaling.high_freq_factor",
      [&] { return scaling.low_freq_factor < scaling.high_freq_factor; },
      [&] { return fmt::format("a low one of {}", scaling.high_freq_factor / 2); });
  add(
      schema, RuleScope::always, {"model.rope_scaling.beta_slow", "model.rope_scaling.beta_fast"},
      "model.rope_scaling.beta_slow must be below model.rope_scaling.beta_fast",
      [&] { return scaling.beta_slow < scaling.beta_fast; },
      [&] { return fmt::format("a slow one of {}", scaling.beta_fast / 2); });
}

void declare_layer_rules(Schema& schema, const ModelConfig& model, const MoeConfig& moe) {
  add(
      schema, RuleScope::always, {"moe.layer_frequency", "model.num_layers"},
      "a list moe.layer_frequency must have model.num_layers entries",
      [&] { return moe.layer_frequency.size() == static_cast<std::size_t>(model.num_layers); },
      [&] {
        return fmt::format("{} entries instead of {}, or an integer", model.num_layers,
                           moe.layer_frequency.size());
      });
  add(
      schema, RuleScope::always, {"moe.layer_frequency", "moe.num_experts", "model.num_layers"},
      "with experts, moe.layer_frequency must leave at least one MoE layer",
      [&] {
        return moe.num_experts == 0 ||
               std::find(moe.layer_frequency.begin(), moe.layer_frequency.end(), 1) !=
                   moe.layer_frequency.end();
      },
      [] { return std::string("moe.layer_frequency = 1, or moe.num_experts = 0"); });
  add(
      schema, RuleScope::always,
      {"model.ffn_hidden_size", "moe.num_experts", "moe.layer_frequency"},
      "dense layers need model.ffn_hidden_size",
      [&] { return model.ffn_hidden_size > 0 || !has_dense_layer(moe); },
      [&] {
        const std::string size =
            fmt::format("model.ffn_hidden_size = {}", 4 * std::int64_t{model.hidden_size});
        return moe.num_experts == 0 ? size : size + ", or moe.layer_frequency = 1";
      });
  add(
      schema, RuleScope::always, {"moe.ffn_hidden_size", "moe.num_experts"},
      "experts need moe.ffn_hidden_size",
      [&] { return moe.num_experts == 0 || moe.ffn_hidden_size > 0; },
      [&] { return fmt::format("moe.ffn_hidden_size = {}", model.hidden_size); });
}

void declare_shared_rules(Schema& schema, const MoeConfig& moe) {
  add(
      schema, RuleScope::always, {"moe.shared_ffn_hidden_size", "moe.num_experts"},
      "moe.shared_ffn_hidden_size above 0 needs experts beside it, moe.num_experts above 0",
      [&] { return moe.shared_ffn_hidden_size == 0 || moe.num_experts > 0; },
      [] { return std::string("moe.shared_ffn_hidden_size = 0"); });
  add(
      schema, RuleScope::always, {"moe.shared_gate", "moe.shared_ffn_hidden_size"},
      "moe.shared_gate = true needs shared experts, moe.shared_ffn_hidden_size above 0",
      [&] { return !moe.shared_gate || moe.shared_ffn_hidden_size > 0; },
      [&] {
        return fmt::format("moe.shared_ffn_hidden_size = {}, or moe.shared_gate = false",
                           std::max(1, moe.ffn_hidden_size));
      });
}

void declare_router_rules(Schema& schema, const MoeConfig& moe) {
  add(
      schema, RuleScope::always, {"moe.top_k", "moe.num_experts"},
      "moe.top_k must not exceed moe.num_experts",
      [&] { return moe.num_experts == 0 || moe.top_k <= moe.num_experts; },
      [&] { return fmt::format("moe.top_k = {} or less", moe.num_experts); });
  add(
      schema, RuleScope::training, {"moe.top_k", "moe.pre_softmax", "moe.score_function"},
      "training with moe.top_k = 1 needs moe.pre_softmax = true or moe.score_function = "
      "\"sigmoid\": a softmax over the one chosen expert is constant 1, and the router would get "
      "no gradient",
      [&] {
        return moe.num_experts == 0 || moe.top_k > 1 || moe.pre_softmax ||
               moe.balances_by("sinkhorn") || moe.score_function == "sigmoid";
      },
      [] { return std::string("moe.pre_softmax = true, or moe.top_k = 2"); });
  add(
      schema, RuleScope::always, {"moe.pre_softmax", "moe.score_function"},
      "moe.pre_softmax = true needs moe.score_function = \"softmax\"",
      [&] { return !moe.pre_softmax || moe.score_function == "softmax"; },
      [] { return std::string("moe.pre_softmax = false"); });
  add(
      schema, RuleScope::always, {"moe.balancing"},
      "\"none\" and \"sinkhorn\" in moe.balancing must stand alone",
      [&] { return moe.balancing.size() == 1 || count_losses(moe) == moe.balancing.size(); },
      [] { return std::string("moe.balancing = \"none\", \"sinkhorn\" or \"aux_loss\""); });
  add(
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
  add(
      schema, RuleScope::always, {"moe.aux_loss_coefficients", "moe.balancing"},
      "moe.aux_loss_coefficients must have one coefficient for each loss that moe.balancing lists",
      [&] { return moe.aux_loss_coefficients.size() == count_losses(moe); },
      [&] {
        return fmt::format("{} instead of {}", count_losses(moe), moe.aux_loss_coefficients.size());
      });
  add(
      schema, RuleScope::always, {"moe.global_aux_counts", "moe.balancing"},
      "moe.global_aux_counts = \"running\" needs \"global_aux_loss\" in moe.balancing, which alone "
      "goes by it",
      [&] { return moe.global_aux_counts == "previous" || moe.balances_by("global_aux_loss"); },
      [] { return std::string("moe.global_aux_counts = \"previous\""); });
  add(
      schema, RuleScope::always, {"moe.force_bias", "moe.force_load_balancing"},
      "moe.force_bias other than 0 needs moe.force_load_balancing = true",
      [&] { return moe.force_bias == 0 || moe.force_load_balancing; },
      [] { return std::string("moe.force_bias = 0, or moe.force_load_balancing = true"); });
  add(
      schema, RuleScope::always, {"moe.replay", "moe.num_experts"},
      "moe.replay needs experts, moe.num_experts above 0",
      [&] { return moe.replay.empty() || moe.num_experts > 0; },
      [] { return std::string("moe.replay = \"\""); });
  add(
      schema, RuleScope::always, {"moe.replay", "moe.force_load_balancing", "moe.balancing"},
      "experts that moe.replay takes from a file are not chosen, so moe.force_load_balancing must "
      "be false, and moe.balancing not \"sinkhorn\"",
      [&] { return !moe.replays() || (!moe.force_load_balancing && !moe.balances_by("sinkhorn")); },
      [] { return std::string("moe.replay = \"\" or \"record\""); });
  add(
      schema, RuleScope::always, {"moe.pad_to_capacity", "moe.capacity_factor"},
      "moe.pad_to_capacity = true needs a capacity, moe.capacity_factor above 0",
      [&] { return !moe.pad_to_capacity || moe.capacity_factor > 0; },
      [] { return std::string("moe.capacity_factor = 1.25"); });
  add(
      schema, RuleScope::always, {"moe.capacity_factor", "moe.balancing"},
      "moe.balancing = \"sinkhorn\" plans evenly by itself, so moe.capacity_factor must be 0",
      [&] { return moe.capacity_factor == 0 || !moe.balances_by("sinkhorn"); },
      [] { return std::string("moe.capacity_factor = 0, or moe.balancing = \"aux_loss\""); });
  add(
      schema, RuleScope::always, {"moe.dispatcher", "moe.receive_budget"},
      "moe.dispatcher = \"allgather\" moves all rows in one round, so moe.receive_budget must be 0",
      [&] { return moe.dispatcher != "allgather" || moe.receive_budget == 0; },
      [] { return std::string("moe.receive_budget = 0, or moe.dispatcher = \"alltoall\""); });
}

void declare_group_rules(Schema& schema, const MoeConfig& moe) {
  add(
      schema, RuleScope::always, {"moe.num_groups", "moe.num_experts"},
      "moe.num_experts must be a multiple of moe.num_groups",
      [&] { return !moe.has_groups() || is_multiple(moe.num_experts, moe.num_groups); },
      [&] { return "moe.num_experts = " + multiples(moe.num_groups, moe.num_experts); });
  add(
      schema, RuleScope::always, {"moe.group_top_k", "moe.num_groups"},
      "with groups of experts, moe.group_top_k must be 1 to moe.num_groups, and 0 without",
      [&] {
        return moe.group_top_k <= moe.num_groups && (!moe.has_groups() || moe.group_top_k >= 1);
      },
      [&] {
        return moe.has_groups() ? fmt::format("1 to {}", moe.num_groups)
                                : std::string("moe.group_top_k = 0");
      });
  add(
      schema, RuleScope::always, {"moe.group_top_k", "moe.top_k", "moe.num_groups"},
      "moe.group_top_k must not exceed moe.top_k: a group is chosen by its best moe.top_k / "
      "moe.group_top_k experts",
      [&] { return !moe.has_groups() || moe.group_top_k <= moe.top_k; },
      [&] { return fmt::format("moe.group_top_k = {} or less", moe.top_k); });
  add(
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

void declare_batch_rules(Schema& schema, const Deck& deck) {
  const BatchConfig& batch = deck.batch;
  const ModelConfig& model = deck.definition.model;
  const MoeConfig& moe = deck.definition.moe;
  add(
      schema, RuleScope::training, {"batch.global_size", "batch.micro_size"},
      "batch.global_size must be a multiple of batch.micro_size",
      [&] { return is_multiple(batch.global_size, batch.micro_size); },
      [&] { return "batch.micro_size = " + divisors(batch.global_size, batch.micro_size); });
  add(
      schema, RuleScope::training, {"batch.micro_size", "moe.window"},
      "batch.micro_size must be a multiple of moe.window",
      [&] {
        return moe.num_experts == 0 || moe.window == 0 || is_multiple(batch.micro_size, moe.window);
      },
      [&] { return "moe.window = " + divisors(batch.micro_size, moe.window); });
  add(
      schema, RuleScope::training, {"batch.micro_size", "model.sequence_length"},
      "a micro-batch, batch.micro_size * model.sequence_length, must stay below 2^31 tokens",
      [&] {
        return std::int64_t{batch.micro_size} * model.sequence_length <=
               std::numeric_limits<int>::max();
      },
      [&] {
        return fmt::format("batch.micro_size = {} or less",
                           std::numeric_limits<int>::max() / model.sequence_length);
      });
}

void declare_recompute_rules(Schema& schema, const Deck& deck) {
  const RecomputeConfig& recompute = deck.recompute;
  const ModelConfig& model = deck.definition.model;
  add(
      schema, RuleScope::training,
      {"recompute.layers", "recompute.granularity", "model.num_layers"},
      "recompute.layers must not exceed model.num_layers",
      [&] { return recompute.granularity != "full" || recompute.layers <= model.num_layers; },
      [&] { return fmt::format("recompute.layers = {} or less", model.num_layers); });
}

void declare_optimizer_rules(Schema& schema, const Deck& deck) {
  const OptimizerConfig& optimizer = deck.optimizer;
  const RunConfig& run = deck.run;
  add(
      schema, RuleScope::training, {"optimizer.min_lr", "optimizer.lr"},
      "optimizer.min_lr must not exceed optimizer.lr",
      [&] { return optimizer.min_lr <= optimizer.lr; },
      [&] { return fmt::format("optimizer.min_lr = {} or less", optimizer.lr); });
  add(
      schema, RuleScope::training, {"optimizer.warmup_steps", "run.steps"},
      "optimizer.warmup_steps must not exceed run.steps",
      [&] { return optimizer.warmup_steps <= run.steps; },
      [&] { return fmt::format("optimizer.warmup_steps = {} or less", run.steps); });
  add(
      schema, RuleScope::training,
      {"optimizer.decay_steps", "optimizer.warmup_steps", "optimizer.schedule", "run.steps"},
      "with schedule \"wsd\", optimizer.warmup_steps + optimizer.decay_steps must not exceed "
      "run.steps",
      [&] {
        return optimizer.schedule != "wsd" ||
               optimizer.warmup_steps + optimizer.decay_steps <= run.steps;
      },
      [&] {
        return fmt::format("optimizer.decay_steps = {} or less",
                           std::max<std::int64_t>(0, run.steps - optimizer.warmup_steps));
      });
}

void declare_gradient_rules(Schema& schema, const Deck& deck) {
  const ParallelConfig& parallel = deck.parallel;
  const DType& compute = deck.definition.compute;
  add(
      schema, RuleScope::training, {"parallel.distributed_optimizer", "parallel.grad_reduce"},
      "parallel.distributed_optimizer needs parallel.grad_reduce = \"ordered\": the library's "
      "sums are for all ranks",
      [&] { return !parallel.distributed_optimizer || parallel.grad_reduce == "ordered"; },
      [] { return std::string("parallel.grad_reduce = \"ordered\""); });
  add(
      schema, RuleScope::training, {"parallel.grad_wire", "parallel.grad_reduce"},
      "parallel.grad_wire = \"bf16\" needs parallel.grad_reduce = \"ordered\": MPI cannot add bf16",
      [&] { return parallel.grad_wire == "fp32" || parallel.grad_reduce == "ordered"; },
      [] {
        return std::string("parallel.grad_reduce = \"ordered\", or parallel.grad_wire = \"fp32\"");
      });
  add(
      schema, RuleScope::training, {"parallel.grad_wire", "precision.compute"},
      "parallel.grad_wire = \"bf16\" needs precision.compute = \"bf16\"",
      [&] { return parallel.grad_wire == "fp32" || compute == DType::bf16; },
      [] { return std::string("parallel.grad_wire = \"fp32\""); });
  add(
      schema, RuleScope::training,
      {"parallel.overlap_param_gather", "parallel.distributed_optimizer"},
      "parallel.overlap_param_gather needs parallel.distributed_optimizer = true: without, every "
      "rank makes all values itself",
      [&] { return !parallel.overlap_param_gather || parallel.distributed_optimizer; },
      [] { return std::string("parallel.overlap_param_gather = false"); });
  add(
      schema, RuleScope::training, {"optimizer.moments", "precision.compute"},
      "optimizer.moments = \"bf16\" does not go with precision.compute = \"fp64\", which is for "
      "verification",
      [&] { return deck.optimizer.moments == "fp32" || compute != DType::fp64; },
      [] { return std::string("optimizer.moments = \"fp32\""); });
}

void declare_data_rules(Schema& schema, const Deck& deck) {
  add(
      schema, RuleScope::training, {"model.vocab_size", "data.kind", "data.tokenizer"},
      "text as bytes needs model.vocab_size of at least 256",
      [&] {
        return deck.data.kind != "text" || deck.data.tokenizer != "bytes" ||
               deck.definition.model.vocab_size >= 256;
      },
      [] { return std::string("model.vocab_size = 256, or data.kind = \"tokens\""); });
  add(
      schema, RuleScope::training, {"eval.interval", "data.kind", "data.split"},
      "validation (eval.interval above 0) needs held-out text: data.kind = \"text\" and data.split "
      "below 1",
      [&] { return deck.eval.interval == 0 || (deck.data.kind == "text" && deck.data.split < 1); },
      [&] {
        const std::string off = "eval.interval = 0";
        return deck.data.kind == "text" ? off + ", or data.split = 0.95" : off;
      });
  add(
      schema, RuleScope::training, {"log.sample_prompt", "data.kind"},
      "log.sample_prompt needs data.kind = \"text\": tokens of other data have no spelling",
      [&] { return deck.log.sample_prompt.empty() || deck.data.kind == "text"; },
      [] { return std::string("log.sample_prompt = \"\""); });
  const CheckpointConfig& checkpoint = deck.checkpoint;
  add(
      schema, RuleScope::training, {"checkpoint.keep_every", "checkpoint.interval"},
      "checkpoint.keep_every must be a multiple of checkpoint.interval",
      [&] {
        return checkpoint.keep_every == 0 ||
               is_multiple(checkpoint.keep_every, checkpoint.interval);
      },
      [&] {
        return "checkpoint.keep_every = " +
               (checkpoint.interval == 0 ? "0"
                                         : multiples(checkpoint.interval, checkpoint.keep_every));
      });
}

}  // namespace

bool has_dense_layer(const MoeConfig& moe) {
  return moe.num_experts == 0 || std::find(moe.layer_frequency.begin(), moe.layer_frequency.end(),
                                           0) != moe.layer_frequency.end();
}

void declare_rules(Schema& schema, const Deck& deck) {
  declare_attention_rules(schema, deck.definition.model);
  declare_layer_rules(schema, deck.definition.model, deck.definition.moe);
  declare_shared_rules(schema, deck.definition.moe);
  declare_router_rules(schema, deck.definition.moe);
  declare_group_rules(schema, deck.definition.moe);
  declare_batch_rules(schema, deck);
  declare_recompute_rules(schema, deck);
  declare_optimizer_rules(schema, deck);
  declare_gradient_rules(schema, deck);
  declare_data_rules(schema, deck);
}

}  // namespace konclave::deck
