#include "deck/entry_parts.hpp"

namespace konclave::deck {
namespace {

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
  schema.key("overlap_tp", bool_form(parallel.overlap_tp),
             "Rows travel between the ranks of tp piece by piece, while products go on with those "
             "that are there.");
  schema.key("overlap_ep", bool_form(parallel.overlap_ep),
             "Rows travel to the experts of other ranks and back in several rounds, while experts "
             "work on another round, or shared experts on the tokens.");
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

}  // namespace

void declare_parallel_entries(Schema& schema, ParallelConfig& parallel,
                              RecomputeConfig& recompute) {
  declare_parallel(schema, parallel);
  declare_recompute(schema, recompute);
}

}  // namespace konclave::deck
