#include "deck/entries.hpp"

#include "deck/entry_parts.hpp"

namespace konclave::deck {
namespace {

void declare_run(Schema& schema, RunConfig& run) {
  schema.section("run", "The run: its name, its folder, how long it lasts.");
  schema.key("name", name_form(run.name),
             "Name of the run; its folder is OUT/NAME, OUT being run.out.");
  schema.key("out", text_form(run.out),
             "Folder of runs. A relative one starts at the current directory.");
  schema.key("seed", integer_form(run.seed, at_least(0)),
             "Seed of all random numbers: weights at start and order of data.");
  schema
      .key("steps", integer_form(run.steps, between(1, kMostSteps)),
           "Optimizer steps of the whole run, resumed parts included.")
      .unit("steps")
      .need(Need::training);
  schema.key("resume", input_path_form(run.resume, {"auto", "never"}),
             "Where to go on from: the newest good checkpoint of the run, nothing, or the "
             "checkpoint at this path.");
  schema
      .key("time_limit", duration_form(run.time_limit),
           "Time after which a checkpoint is saved and the run ends with exit code 75, the save "
           "included; 0 sets no limit.")
      .unit("seconds");
}

void declare_batch(Schema& schema, BatchConfig& batch) {
  schema.section("batch", "How a step's sequences are cut.");
  schema
      .key("global_size", integer_form(batch.global_size, between(1, kLargestExtent)),
           "Sequences of one optimizer step, all ranks together.")
      .unit("sequences")
      .need(Need::training);
  schema
      .key("micro_size", integer_form(batch.micro_size, between(1, kLargestExtent)),
           "Sequences of one forward and backward pass.")
      .unit("sequences");
}

void declare_optimizer(Schema& schema, OptimizerConfig& optimizer) {
  const auto steps = between(0, kMostSteps);
  schema.section("optimizer", "AdamW with decoupled weight decay, and the learning rate.");
  schema.key("lr", number_form(optimizer.lr, above(0)), "Highest learning rate.");
  schema.key("min_lr", number_form(optimizer.min_lr, at_least(0)),
             "Learning rate at the end of the decay.");
  schema.key("betas", betas_form(optimizer.betas),
             "Decay rates of the first and the second moment.");
  schema.key("eps", number_form(optimizer.eps, above(0)),
             "Added to the root of the second moment.");
  schema.key("weight_decay", number_form(optimizer.weight_decay, at_least(0)),
             "Weight decay per step, times the learning rate.");
  schema.key("decay", choice_form(optimizer.decay, {"matrices", "all"}),
             "What is decayed: matrices alone, or norms and biases too.");
  schema.key(
      "moments", choice_form(optimizer.moments, {"fp32", "bf16"}),
      "Type in which moments are kept (fp64 where everything is). bf16 halves them; they are "
      "rounded up or down by chance, so that what is small against them is not lost.");
  schema.key("clip_norm", number_form(optimizer.clip_norm, at_least(0)),
             "Largest norm of all gradients together; 0 does not clip.");
  schema.key("schedule", choice_form(optimizer.schedule, {"cosine", "linear", "wsd", "constant"}),
             "Course of the learning rate after the warm-up; wsd stays high and falls at the end.");
  schema
      .key("warmup_steps", integer_form(optimizer.warmup_steps, steps),
           "Steps over which the learning rate rises linearly from 0.")
      .unit("steps");
  schema
      .key("decay_steps", integer_form(optimizer.decay_steps, steps),
           "Steps over which the learning rate falls to optimizer.min_lr. cosine and linear: "
           "after the warm-up, 0 to the end of the run; wsd: at the end of the run, 0 takes a "
           "tenth of it.")
      .unit("steps");
}

void declare_precision(Schema& schema, DType& compute) {
  schema.section("precision", "Number formats.");
  define(schema, "compute", dtype_form(compute),
         "Type of weights and activations. bf16 keeps fp32 master weights, gradients and moments; "
         "fp64 is for verification.");
}

void declare_data(Schema& schema, DataConfig& data, EvalConfig& eval) {
  schema.section("data", "What is trained on.");
  schema.key("kind", choice_form(data.kind, {"text", "tokens"}),
             "Plain text, or safetensors files with input_ids (N,S) and optional labels.");
  schema
      .key("files", input_files_form(data.files),
           "Paths and globs. A relative one starts at the folder of the deck that names it when "
           "it exists there, else at the current directory.")
      .need(Need::training);
  schema.key("tokenizer", choice_form(data.tokenizer, {"bytes"}),
             "How text becomes tokens: one token for each byte. For kind \"text\".");
  schema.key("split", number_form(data.split, {.low = 0, .high = 1, .low_is_out = true}),
             "Share of each file that is trained on; the rest is held out for validation. For kind "
             "\"text\".");
  schema.key("shuffle", bool_form(data.shuffle),
             "Sequences in a random order, another one in each epoch.");

  schema.section("eval", "Validation during training.");
  schema
      .key("interval", integer_form(eval.interval, between(0, kMostSteps)),
           "Steps from one validation to the next; 0 never validates.")
      .unit("steps");
  schema
      .key("steps", integer_form(eval.steps, between(0, kMostSteps)),
           "Held-out global batches of one validation; 0 takes all.")
      .unit("global batches");
}

void declare_output(Schema& schema, Deck& deck) {
  CheckpointConfig& checkpoint = deck.checkpoint;
  schema.section("checkpoint", "What is saved, and what is loaded at start.");
  schema.key("folder", text_form(checkpoint.folder),
             "Folder of checkpoints; empty takes OUT/NAME/checkpoints.");
  schema
      .key("interval", integer_form(checkpoint.interval, between(0, kMostSteps)),
           "Steps from one checkpoint to the next; 0 saves at the end only.")
      .unit("steps");
  schema.key("keep", integer_form(checkpoint.keep, between(1, 1e9)),
             "Newest checkpoints that stay.");
  schema
      .key("keep_every", integer_form(checkpoint.keep_every, between(0, kMostSteps)),
           "Checkpoints of a multiple of this step stay for good; 0 for none.")
      .unit("steps");
  schema.key("load", input_path_form(checkpoint.load, {}),
             "Weights to start from: a checkpoint or a Hugging Face folder. A checkpoint of this "
             "run that run.resume finds comes first.");

  schema.section("fault", "What a run survives.");
  schema
      .key("nan_budget", integer_form(deck.fault.nan_budget, between(0, kMostSteps)),
           "Steps whose loss or gradient may be no finite number; they update nothing. One more "
           "ends the run with exit code 76.")
      .unit("steps");
  schema
      .key(
          "step_timeout", timeout_form(deck.fault.step_timeout, FaultConfig::kAutoTimeout),
          "Time after which a step counts as hanging, and so does a micro-batch of a validation; a "
          "checkpoint gets ten times as long, and at least an hour. Then the job says which ranks "
          "are missing in which exchange, and ends with exit code 70. auto takes 20 times the "
          "median of the last steps, at least 10 minutes, and leaves the first step alone; 0 waits "
          "for ever.")
      .unit("seconds");

  LogConfig& log = deck.log;
  schema.section("log", "What is shown while training.");
  schema
      .key("interval", integer_form(log.interval, between(1, kMostSteps)),
           "Steps from one line of progress to the next.")
      .unit("steps");
  schema.key("progress", choice_form(log.progress, {"auto", "bar", "lines", "none"}),
             "Form of progress; auto shows a bar on a terminal and lines elsewhere.");
  schema
      .key("trace_steps", trace_steps_form(log.trace_steps),
           "Steps of which the run's folder gets a trace, trace.json, for Perfetto or Chrome: a "
           "list, "
           "or an integer n for the first n.")
      .unit("steps");
  schema.key("per_layer", bool_form(log.per_layer),
             "Metrics of each MoE layer as well: the list layers in metrics.jsonl, and with "
             "log.tensorboard a group of curves for each.");
  schema.key("tensorboard", bool_form(log.tensorboard),
             "The run's folder gets the metrics as scalars for TensorBoard too.");
  schema.key("sample_prompt", text_form(log.sample_prompt),
             "At the end the model continues this text; empty for no sample.");

  BackendConfig& backends = deck.backends;
  schema.section("backends",
                 "Backend to insist on for each operation; \"auto\" takes the first one built that "
                 "can run the problem.");
  schema.key("gemm", text_form(backends.gemm), "Matrix products.");
  schema.key("grouped_gemm", text_form(backends.grouped_gemm),
             "Matrix products of all local experts in one call.");
  schema.key("attention", text_form(backends.attention), "Causal grouped-query attention.");
}

}  // namespace

void declare_entries(Schema& schema, Deck& deck) {
  declare_run(schema, deck.run);
  declare_model_entries(schema, deck.definition);
  declare_parallel_entries(schema, deck.parallel, deck.recompute);
  declare_batch(schema, deck.batch);
  declare_optimizer(schema, deck.optimizer);
  declare_precision(schema, deck.definition.compute);
  declare_data(schema, deck.data, deck.eval);
  declare_output(schema, deck);
}

}  // namespace konclave::deck
