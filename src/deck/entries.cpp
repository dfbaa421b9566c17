#include "deck/entries.hpp"

namespace konclave::deck {
namespace {

constexpr double kMostSteps = 1e12;
constexpr double kMostRows = 1e12;
constexpr double kLargestExtent = 1 << 24;
constexpr double kMostLayers = 4096;
constexpr double kMostRanks = 4096;  // of an axis

/// A key that makes the model what it is.
Entry& define(Schema& schema, const char* name, Form form, const char* meaning) {
  return schema.key(name, std::move(form), meaning).defines_model();
}

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

void declare_model(Schema& schema, ModelConfig& model) {
  const auto extent = between(1, kLargestExtent), extent_or_default = between(0, kLargestExtent);
  schema.section("model", "The decoder: embedding, attention, dense MLP layers, head.");
  define(schema, "vocab_size", integer_form(model.vocab_size, extent),
         "Tokens in the vocabulary, rows of embedding and head.")
      .unit("tokens")
      .need(Need::always);
  define(schema, "sequence_length", integer_form(model.sequence_length, extent),
         "Length of a training sequence.")
      .unit("tokens")
      .need(Need::always);
  define(schema, "hidden_size", integer_form(model.hidden_size, extent),
         "Width of the residual stream.")
      .need(Need::always);
  define(schema, "num_layers", integer_form(model.num_layers, between(1, kMostLayers)),
         "Transformer layers, dense and MoE together.")
      .need(Need::always);
  define(schema, "num_heads", integer_form(model.num_heads, between(1, 4096)),
         "Query heads of attention.")
      .need(Need::always);
  define(schema, "num_kv_heads", integer_form(model.num_kv_heads, between(0, 4096)),
         "Key and value heads (grouped-query attention); 0 takes model.num_heads.");
  define(schema, "head_dim", integer_form(model.head_dim, between(0, 4096)),
         "Size of a head; 0 takes model.hidden_size / model.num_heads.");
  define(schema, "ffn_hidden_size", integer_form(model.ffn_hidden_size, extent_or_default),
         "Hidden size of the SwiGLU MLP of dense layers.");
  define(schema, "norm_eps", number_form(model.norm_eps, above(0)),
         "Added to the mean square in RMSNorm.");
  define(schema, "rope_theta", number_form(model.rope_theta, above(0)),
         "Base of the rotary position embedding's wavelengths.");
  define(schema, "qk_norm", bool_form(model.qk_norm),
         "RMSNorm of each query and key head before the rotary embedding.");
  define(schema, "qkv_bias", bool_form(model.qkv_bias),
         "Bias in the query, key and value projections.");
  define(schema, "tie_embeddings", bool_form(model.tie_embeddings),
         "Head and embedding share one matrix.");
  define(schema, "init_std", number_form(model.init_std, above(0)),
         "Standard deviation of the weights at start.");
}

void declare_rope_scaling(Schema& schema, RopeScaling& scaling) {
  schema.section("model.rope_scaling",
                 "How rotary positions are stretched beyond the length that a model was first "
                 "trained at; names and formulas are those of Hugging Face.");
  define(schema, "type", choice_form(scaling.type, {"none", "linear", "llama3", "yarn"}),
         "Kind of stretching.")
      .need(Need::with_section);
  define(schema, "factor", number_form(scaling.factor, at_least(1)), "New length over old length.");
  define(schema, "original_max_position_embeddings",
         number_form(scaling.original_max_position_embeddings, at_least(0)),
         "The old length; for llama3 and yarn.")
      .unit("tokens");
  define(schema, "low_freq_factor", number_form(scaling.low_freq_factor, above(0)),
         "llama3: wavelengths above the old length over this are stretched in full.");
  define(schema, "high_freq_factor", number_form(scaling.high_freq_factor, above(0)),
         "llama3: wavelengths below the old length over this are kept.");
  define(schema, "beta_fast", number_form(scaling.beta_fast, above(0)),
         "yarn: dimensions that turn more often than this over the old length are kept.");
  define(schema, "beta_slow", number_form(scaling.beta_slow, above(0)),
         "yarn: dimensions that turn less often than this are stretched in full.");
  define(schema, "attention_factor", number_form(scaling.attention_factor, at_least(0)),
         "yarn: factor on cosine and sine; 0 takes 0.1 ln(factor) + 1.");
}

void declare_moe(Schema& schema, MoeConfig& moe, const ModelConfig& model) {
  schema.section("moe", "Mixture-of-Experts layers: experts, router, balance.");
  define(schema, "num_experts", integer_form(moe.num_experts, between(0, 4096)),
         "Experts of each MoE layer in the whole model; 0 makes every layer dense.")
      .need(Need::with_section);
  define(schema, "top_k", integer_form(moe.top_k, between(1, 4096)),
         "Experts that each token is sent to.");
  define(schema, "ffn_hidden_size", integer_form(moe.ffn_hidden_size, between(0, kLargestExtent)),
         "Hidden size of the SwiGLU MLP of one expert.");
  define(schema, "shared_ffn_hidden_size",
         integer_form(moe.shared_ffn_hidden_size, between(0, kLargestExtent)),
         "Hidden size of the SwiGLU MLP that every token passes beside its experts (shared "
         "experts, all of them together); 0: there is none.");
  define(schema, "shared_gate", bool_form(moe.shared_gate),
         "The output of the shared experts is weighted for each token, by the sigmoid of a product "
         "with a vector.");
  define(schema, "layer_frequency", layer_frequency_form(moe.layer_frequency, model.num_layers),
         "Which layers are MoE layers: with an integer n layer i is one when i is a multiple "
         "of n, counted from 0; a list has a 1 for each MoE layer and a 0 for each dense one.");
  define(
      schema, "score_function", choice_form(moe.score_function, {"softmax", "sigmoid"}),
      "What makes scores of the router's logits. Of a sigmoid, the weights of the chosen experts "
      "are their scores over the sum of these, or the score itself with moe.top_k = 1.");
  define(schema, "pre_softmax", bool_form(moe.pre_softmax),
         "Softmax over all experts before the choice, instead of over the chosen ones after "
         "it.");
  define(
      schema, "num_groups", integer_form(moe.num_groups, between(0, 4096)),
      "Groups of neighbouring experts, for a choice by groups: first of the groups of largest "
      "value, the sum of the best moe.top_k / moe.group_top_k scores in each, then of experts in "
      "these. 0 or 1: no groups.");
  define(schema, "group_top_k", integer_form(moe.group_top_k, between(0, 4096)),
         "Groups that a token's experts may be in.");
  define(schema, "scaling_factor", number_form(moe.scaling_factor, above(0)),
         "Factor on the weights of the chosen experts.");
  schema.key("router_dtype", choice_form(moe.router_dtype, {"fp32", "fp64"}),
             "Type of the router's logits and scores, whatever the model's; in an fp64 model it is "
             "fp64 anyway.");
  schema
      .key("window", window_form(moe.window),
           "Routing window: consecutive sequences over which balance is counted. "
           "\"microbatch\" counts over the whole micro-batch, and then results depend on "
           "batch.micro_size.")
      .unit("sequences");
  schema.key(
      "balancing",
      choices_form(moe.balancing,
                   {"aux_loss", "seq_aux_loss", "global_aux_loss", "sinkhorn", "none"},
                   "write \"none\" for no balancing"),
      "What keeps the load of the experts even: losses that count over routing windows, over "
      "sequences, or over the global batch of the step before; or a plan for the tokens of a "
      "window (Sinkhorn).");
  schema.key("global_aux_counts", choice_form(moe.global_aux_counts, {"previous", "running"}),
             "Load that the loss \"global_aux_loss\" goes by: that of the step before, or the mean "
             "of the step's micro-batches so far over all data-parallel ranks. With \"running\" "
             "results depend on batch.micro_size and on the number of data-parallel ranks.");
  schema.key("aux_loss_coefficients", coefficients_form(moe.aux_loss_coefficients),
             "Coefficient of each loss that moe.balancing lists.");
  define(schema, "expert_bias", bool_form(moe.expert_bias),
         "Balance without a loss: a bias of each expert, added to the scores where experts are "
         "chosen but not to weights, goes up after each step for experts with less than the "
         "mean of the global batch's assignments, and down for those with more.");
  schema.key("expert_bias_update_rate", number_form(moe.expert_bias_update_rate, above(0)),
             "By how much the bias of an expert changes in a step.");
  schema.key("z_loss_coefficient", number_form(moe.z_loss_coefficient, at_least(0)),
             "Coefficient of the router's z-loss, the mean square of the log-sum-exp of its "
             "logits.");
  schema.key("input_jitter", number_form(moe.input_jitter, between(0, 1)),
             "Noise on what the router sees in training: each element of its input times a random "
             "number between 1 - this and 1 + this.");
  schema.key("force_load_balancing", bool_form(moe.force_load_balancing),
             "For measurements: experts are chosen by random logits, evenly. Such a model learns "
             "no routing.");
  schema.key("force_bias", number_form(moe.force_bias, between(-1000, 1000)),
             "For measurements, with moe.force_load_balancing: standard deviation of what is added "
             "to the random logits of an expert, new in each step; below 0 its negative, the same "
             "in all steps.");
  schema.key("replay", input_path_form(moe.replay, {"record"}),
             "Routing as it was: \"record\" writes the experts of every token, layer and step to "
             "routing_choices.h5 in the run's folder; with the path of such a file, experts are "
             "taken from it instead of chosen, whatever the mapping. Training only.");
  schema.key("capacity_factor", number_form(moe.capacity_factor, at_least(0)),
             "Bounds what an expert takes of a routing window, in training: to this many times its "
             "even share of the assignments. What is over is dropped: the token passes by. 0 drops "
             "nothing.");
  schema.key("pad_to_capacity", bool_form(moe.pad_to_capacity),
             "Fills up every expert to moe.capacity_factor with tokens of weight 0, so that shapes "
             "never change.");
  schema.key("drop_policy", choice_form(moe.drop_policy, {"probs", "position"}),
             "Which assignments an expert with too many keeps: those of largest weight, or those "
             "of the tokens that come first.");
  schema
      .key("receive_budget", integer_form(moe.receive_budget, between(0, kMostRows)),
           "Rows (a token at one of its experts) that the experts of a rank take at once. With "
           "more, the layer works in several rounds, so that memory is bounded and no token is "
           "dropped; 0 sets no bound.")
      .unit("rows");
  schema.key(
      "dispatcher", choice_form(moe.dispatcher, {"alltoall", "allgather"}),
      "How rows come to their experts: each to the ranks that want it, or all of them to all "
      "ranks of parallel.etp and parallel.ep, which is less work with few ranks and many "
      "experts for each token.");
}

void declare_dense_axes(Schema& schema, ParallelConfig& parallel) {
  const auto ranks = between(1, kMostRanks);
  schema
      .key("tp", integer_form(parallel.tp, ranks),
           "Tensor parallelism: ranks that share the matrices of attention, dense MLP, embedding "
           "and head, by heads, hidden size and vocabulary. With fewer key and value heads than "
           "ranks, several ranks have the same one.")
      .unit("ranks");
  schema.key(
      "sp", bool_form(parallel.sp),
      "Sequence parallelism: norms and residuals, too, are shared by the ranks of parallel.tp, "
      "by rows.");
  schema
      .key("cp", integer_form(parallel.cp, ranks),
           "Context parallelism: ranks that share each sequence, every rank with two pieces of it, "
           "one from either end.")
      .unit("ranks");
  schema.key(
      "cp_comm", choice_form(parallel.cp_comm, {"ring", "all_gather", "a2a"}),
      "How a query sees the keys on other ranks of parallel.cp: keys and values go round, are "
      "gathered at once, or heads are exchanged for positions.");
}

void declare_pipeline(Schema& schema, ParallelConfig& parallel) {
  const auto layers = between(0, kMostLayers);
  schema
      .key("pp", integer_form(parallel.pp, between(1, kMostRanks)),
           "Pipeline parallelism: stages, each of which has a part of the layers.")
      .unit("stages");
  schema
      .key("vpp", integer_form(parallel.vpp, between(1, kMostLayers)),
           "Chunks of the model on each stage (virtual pipeline): stages idle less, and send more.")
      .unit("chunks");
  schema
      .key("vpp_group_size", integer_form(parallel.vpp_group_size, between(0, kLargestExtent)),
           "Micro-batches that pass a chunk before the stage turns to its next one; 0 takes "
           "parallel.pp.")
      .unit("micro-batches");
  schema.key(
      "layout", layout_form(parallel.layout),
      "Which chunk has what, in the order of the way: E embedding, t a layer, L head and loss; "
      "| parts, x*n repeats a letter, (...)*n a group, as in \"Et|(tt|)*2tL\". Part i is on "
      "stage i mod parallel.pp; their number gives parallel.vpp. Empty: evenly.");
  schema
      .key("first_stage_layers", integer_form(parallel.first_stage_layers, layers),
           "Layers of the first stage; 0: as many as the other stages have.")
      .unit("layers");
  schema
      .key("last_stage_layers", integer_form(parallel.last_stage_layers, layers),
           "Layers of the last stage; 0: as many as the other stages have.")
      .unit("layers");
}

void declare_expert_axes(Schema& schema, ParallelConfig& parallel) {
  schema
      .key("ep", integer_form(parallel.ep, between(1, kMostRanks)),
           "Expert parallelism: ranks that share the experts of each MoE layer: each holds "
           "moe.num_experts / parallel.ep of them.")
      .unit("ranks");
  schema
      .key("etp", integer_form(parallel.etp, between(1, kMostRanks)),
           "Tensor parallelism of experts: ranks that share the matrices of each expert, by hidden "
           "size, whatever parallel.tp is.")
      .unit("ranks");
}

void declare_parallel(Schema& schema, ParallelConfig& parallel) {
  schema.section("parallel",
                 "How the ranks share the work. Their number is a multiple of parallel.tp x "
                 "parallel.cp x parallel.pp and of parallel.etp x parallel.ep x parallel.pp; the "
                 "data-parallel sizes dp and edp are what is left.");
  declare_dense_axes(schema, parallel);
  declare_pipeline(schema, parallel);
  declare_expert_axes(schema, parallel);
  schema.key("order", order_form(parallel.order),
             "Axes of the ranks, the fastest first. Dense layers have the axes tp, cp, dp and pp, "
             "experts etp, ep, edp and pp: tp means etp too, and dp means edp. Axes of size 1 may "
             "be left out.");
  schema.key("grad_reduce", choice_form(parallel.grad_reduce, {"ordered", "library"}),
             "Sum of the gradients over ranks: in a fixed order, the same bits in every run, or "
             "as the MPI library likes.");
  schema.key("grad_wire", choice_form(parallel.grad_wire, {"fp32", "bf16"}),
             "Type in which gradients travel to the rank that sums them, in fp32: bf16 halves "
             "what is sent, and rounds what each rank adds.");
  schema.key(
      "distributed_optimizer", bool_form(parallel.distributed_optimizer),
      "Master weights and moments shared out over the ranks that hold the same weights "
      "(ZeRO-1): 12 / d bytes a parameter instead of 12, with d = dp x cp, for experts edp.");
  schema
      .key("bucket_size", integer_form(parallel.bucket_size, between(1, kLargestExtent)),
           "Elements of gradients, or of new values of the distributed optimizer, that travel "
           "together.")
      .unit("elements");
  schema.key("overlap_grad_reduce", bool_form(parallel.overlap_grad_reduce),
             "Gradients travel in buckets as soon as the last backward has passed their layers, "
             "while it goes on with others.");
  schema.key("overlap_param_gather", bool_form(parallel.overlap_param_gather),
             "With the distributed optimizer, new values travel while the next forward goes on "
             "through layers that have theirs.");
}

void declare_recompute(Schema& schema, RecomputeConfig& recompute) {
  schema.section("recompute",
                 "What forward does not keep for backward, which then does it once more: less "
                 "memory, more work, the same bits.");
  schema.key("granularity", choice_form(recompute.granularity, {"none", "selective", "full"}),
             "Nothing, the modules of recompute.modules, or whole layers.");
  schema.key(
      "modules",
      choices_form(recompute.modules,
                   {"core_attn", "layernorm", "moe_act", "mlp", "moe", "shared_experts"},
                   "leave it out, or write recompute.granularity = \"none\""),
      "With \"selective\": the attention between its projections; the outputs of a layer's two "
      "norms; the experts' activation, which is never kept; the MLP of dense layers; MoE layers as "
      "a whole, router and "
      "dispatch included; their shared experts.");
  schema.key("method", choice_form(recompute.method, {"uniform", "block"}),
             "With \"full\": all layers, in groups of recompute.layers that keep the input of the "
             "first alone, or the first recompute.layers of each chunk, one by one.");
  schema
      .key("layers", integer_form(recompute.layers, between(1, kMostLayers)),
           "Layers of a group, or those of a chunk that are done again.")
      .unit("layers");
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
  declare_model(schema, deck.definition.model);
  declare_rope_scaling(schema, deck.definition.model.rope_scaling);
  declare_moe(schema, deck.definition.moe, deck.definition.model);
  declare_parallel(schema, deck.parallel);
  declare_recompute(schema, deck.recompute);
  declare_batch(schema, deck.batch);
  declare_optimizer(schema, deck.optimizer);
  declare_precision(schema, deck.definition.compute);
  declare_data(schema, deck.data, deck.eval);
  declare_output(schema, deck);
}

}  // namespace konclave::deck
