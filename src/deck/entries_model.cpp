#include "deck/entry_parts.hpp"

namespace konclave::deck {
namespace {

constexpr double kMostRows = 1e12;

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

}  // namespace

void declare_model_entries(Schema& schema, ModelDefinition& definition) {
  declare_model(schema, definition.model);
  declare_rope_scaling(schema, definition.model.rope_scaling);
  declare_moe(schema, definition.moe, definition.model);
}

}  // namespace konclave::deck
