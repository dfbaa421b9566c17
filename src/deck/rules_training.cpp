#include "deck/alternatives.hpp"
#include "deck/rule_parts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace konclave::deck {
namespace {

void declare_batch_rules(Schema& schema, const Deck& deck) {
  const BatchConfig& batch = deck.batch;
  const ModelConfig& model = deck.definition.model;
  const MoeConfig& moe = deck.definition.moe;
  add_rule(
      schema, RuleScope::training, {"batch.global_size", "batch.micro_size"},
      "batch.global_size must be a multiple of batch.micro_size",
      [&] { return is_multiple(batch.global_size, batch.micro_size); },
      [&] { return "batch.micro_size = " + divisors(batch.global_size, batch.micro_size); });
  add_rule(
      schema, RuleScope::training, {"batch.micro_size", "moe.window"},
      "batch.micro_size must be a multiple of moe.window",
      [&] {
        return moe.num_experts == 0 || moe.window == 0 || is_multiple(batch.micro_size, moe.window);
      },
      [&] { return "moe.window = " + divisors(batch.micro_size, moe.window); });
  add_rule(
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
  add_rule(
      schema, RuleScope::training,
      {"recompute.layers", "recompute.granularity", "model.num_layers"},
      "recompute.layers must not exceed model.num_layers",
      [&] { return recompute.granularity != "full" || recompute.layers <= model.num_layers; },
      [&] { return fmt::format("recompute.layers = {} or less", model.num_layers); });
}

void declare_optimizer_rules(Schema& schema, const Deck& deck) {
  const OptimizerConfig& optimizer = deck.optimizer;
  const RunConfig& run = deck.run;
  add_rule(
      schema, RuleScope::training, {"optimizer.min_lr", "optimizer.lr"},
      "optimizer.min_lr must not exceed optimizer.lr",
      [&] { return optimizer.min_lr <= optimizer.lr; },
      [&] { return fmt::format("optimizer.min_lr = {} or less", optimizer.lr); });
  add_rule(
      schema, RuleScope::training, {"optimizer.warmup_steps", "run.steps"},
      "optimizer.warmup_steps must not exceed run.steps",
      [&] { return optimizer.warmup_steps <= run.steps; },
      [&] { return fmt::format("optimizer.warmup_steps = {} or less", run.steps); });
  add_rule(
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
  add_rule(
      schema, RuleScope::training, {"parallel.distributed_optimizer", "parallel.grad_reduce"},
      "parallel.distributed_optimizer needs parallel.grad_reduce = \"ordered\": the library's "
      "sums are for all ranks",
      [&] { return !parallel.distributed_optimizer || parallel.grad_reduce == "ordered"; },
      [] { return std::string("parallel.grad_reduce = \"ordered\""); });
  add_rule(
      schema, RuleScope::training, {"parallel.grad_wire", "parallel.grad_reduce"},
      "parallel.grad_wire = \"bf16\" needs parallel.grad_reduce = \"ordered\": MPI cannot add bf16",
      [&] { return parallel.grad_wire == "fp32" || parallel.grad_reduce == "ordered"; },
      [] {
        return std::string("parallel.grad_reduce = \"ordered\", or parallel.grad_wire = \"fp32\"");
      });
  add_rule(
      schema, RuleScope::training, {"parallel.grad_wire", "precision.compute"},
      "parallel.grad_wire = \"bf16\" needs precision.compute = \"bf16\"",
      [&] { return parallel.grad_wire == "fp32" || compute == DType::bf16; },
      [] { return std::string("parallel.grad_wire = \"fp32\""); });
  add_rule(
      schema, RuleScope::training,
      {"parallel.overlap_param_gather", "parallel.distributed_optimizer"},
      "parallel.overlap_param_gather needs parallel.distributed_optimizer = true: without, every "
      "rank makes all values itself",
      [&] { return !parallel.overlap_param_gather || parallel.distributed_optimizer; },
      [] { return std::string("parallel.overlap_param_gather = false"); });
  add_rule(
      schema, RuleScope::training, {"parallel.overlap_tp", "parallel.tp", "parallel.sp"},
      "parallel.overlap_tp with parallel.tp > 1 needs parallel.sp = true: without, there are no "
      "rows to gather",
      [&] { return !parallel.overlap_tp || parallel.tp == 1 || parallel.sp; },
      [] { return std::string("parallel.sp = true, or parallel.overlap_tp = false"); });
  add_rule(
      schema, RuleScope::training, {"optimizer.moments", "precision.compute"},
      "optimizer.moments = \"bf16\" does not go with precision.compute = \"fp64\", which is for "
      "verification",
      [&] { return deck.optimizer.moments == "fp32" || compute != DType::fp64; },
      [] { return std::string("optimizer.moments = \"fp32\""); });
}

void declare_data_rules(Schema& schema, const Deck& deck) {
  add_rule(
      schema, RuleScope::training, {"model.vocab_size", "data.kind", "data.tokenizer"},
      "text as bytes needs model.vocab_size of at least 256",
      [&] {
        return deck.data.kind != "text" || deck.data.tokenizer != "bytes" ||
               deck.definition.model.vocab_size >= 256;
      },
      [] { return std::string("model.vocab_size = 256, or data.kind = \"tokens\""); });
  add_rule(
      schema, RuleScope::training, {"eval.interval", "data.kind", "data.split"},
      "validation (eval.interval above 0) needs held-out text: data.kind = \"text\" and data.split "
      "below 1",
      [&] { return deck.eval.interval == 0 || (deck.data.kind == "text" && deck.data.split < 1); },
      [&] {
        const std::string off = "eval.interval = 0";
        return deck.data.kind == "text" ? off + ", or data.split = 0.95" : off;
      });
  add_rule(
      schema, RuleScope::training, {"log.sample_prompt", "data.kind"},
      "log.sample_prompt needs data.kind = \"text\": tokens of other data have no spelling",
      [&] { return deck.log.sample_prompt.empty() || deck.data.kind == "text"; },
      [] { return std::string("log.sample_prompt = \"\""); });
  const CheckpointConfig& checkpoint = deck.checkpoint;
  add_rule(
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

void declare_training_rules(Schema& schema, const Deck& deck) {
  declare_batch_rules(schema, deck);
  declare_recompute_rules(schema, deck);
  declare_optimizer_rules(schema, deck);
  declare_gradient_rules(schema, deck);
  declare_data_rules(schema, deck);
}

}  // namespace konclave::deck
