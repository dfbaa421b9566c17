#include "moe/router.hpp"

#include "moe/expert_choices.hpp"
#include "moe/router_products.hpp"
#include "moe/sinkhorn.hpp"
#include "ops/elementwise.hpp"
#include "ops/router.hpp"

namespace konclave {

namespace {

/// 0, K, 2K, ... TK.
View1<const int> uniform_offsets(const Context& context, std::int64_t tokens, int top_k) {
  const auto offsets = context.activations.make1<int>(tokens + 1);
  Kokkos::parallel_for(
      "konclave::moe::uniform_offsets", Range(context.exec, 0, tokens + 1),
      KOKKOS_LAMBDA(const std::int64_t t) { offsets(t) = static_cast<int>(t) * top_k; });
  return offsets;
}

/// With Sinkhorn balancing the weights are scores as they are, whatever is chosen.
ops::RouteRule route_rule(const MoeConfig& config) {
  ops::RouteRule rule;
  rule.score = config.score_function == "sigmoid" ? ops::ScoreFunction::sigmoid
                                                  : ops::ScoreFunction::softmax;
  rule.pre_softmax = config.pre_softmax;
  rule.num_groups = config.num_groups;
  rule.group_top_k = config.group_top_k;
  rule.scaling_factor = config.scaling_factor;
  if (config.balances_by("sinkhorn")) {
    // Whatever the plan chooses has the weight of its activation, which is not renormalised.
    rule.score = config.top_k == 1 ? ops::ScoreFunction::sigmoid : ops::ScoreFunction::softmax;
    rule.pre_softmax = true;
  }
  return rule;
}

View1<const float> row(const View2<const float>& of, int index) {
  // By its address: the host may not name elements of a device.
  return View1<const float>(of.data() + index * of.extent(1), of.extent(1));
}

View2<int> make_choices(Arena& arena, std::int64_t tokens, int top_k) {
  return View2<int>(arena.make1<int>(tokens * top_k).data(), static_cast<std::size_t>(tokens),
                    static_cast<std::size_t>(top_k));
}

/// Memory for what the kernel sums up; `two_choices` when the chosen experts may be others than
/// those of the largest scores.
ops::RouteStatistics make_statistics(Arena& scratch, const RoutingWindows& windows,
                                     std::int64_t tokens, const MoeConfig& config,
                                     bool two_choices) {
  const int count = windows.sequences, experts = config.num_experts;
  const auto table = [&] { return scratch.make(DType::fp64, count, experts).as2<double>(); };
  ops::RouteStatistics to;
  to.offsets = windows.sequence_offsets;
  to.counts = table();
  to.sums = table();
  to.chosen = two_choices ? table() : to.counts;
  to.squares = scratch.make1<double>(count);
  to.entropy = scratch.make1<double>(count);
  to.scratch = scratch.make1<double>(ops::route_scratch(tokens, count, experts));
  if (two_choices) to.largest = make_choices(scratch, tokens, config.top_k);
  return to;
}

}  // namespace

Router::Router(const std::string& name, int hidden, double init_std, DType type,
               const MoeConfig& config, const Groups& groups, const ParameterStorage& storage)
    : config_(config),
      rule_(route_rule(config)),
      noise_(name, config),
      type_(config.router_dtype == "fp64" ? DType::fp64 : accum_type(type)),
      sharing_(groups.tp_cp),
      dp_(groups.dp),
      weight_({name + ".weight", {config.num_experts, hidden}, accum_type(type), init_std},
              Placement::outside({config.num_experts, hidden}, TensorParallel(groups)), storage) {}

void Router::prepare(const ExecSpace& exec, Operations& operations) {
  weight_.prepare(exec, operations, 0);
}

RoutingPlan Router::forward(const Context& context, const AnyIn& x, const MoeStep& step, int layer,
                            Saved& saved) const {
  const ArenaScope scope(context.scratch);
  const std::int64_t tokens = x.extent(0), experts = config_.num_experts;
  Arena& keep = context.activations;
  // Backward wants the logits of a sigmoid, but the scores of a softmax.
  const bool sigmoid = rule_.score == ops::ScoreFunction::sigmoid;

  saved.x = x;
  saved.step = step;
  if (noise_.jitters(step)) {
    const AnyView jittered = keep.make(x.type(), tokens, x.extent(1));
    noise_.jitter(context.exec, step, x, jittered);
    saved.x = jittered;
  }
  const AnyView logits = (sigmoid ? keep : context.scratch).make(type_, tokens, experts);
  router_logits(context, weight_, saved.x, logits);
  noise_.force(context.exec, step, logits);

  const View2<int> chosen = make_choices(keep, tokens, config_.top_k);
  const ops::Routed routed{(sigmoid ? context.scratch : keep).make(type_, tokens, experts),
                           keep.make(type_, tokens), chosen,
                           keep.make(type_, tokens, config_.top_k)};
  ops::RouteChoice by;
  if (config_.expert_bias) by.bias = row(step.state.expert_bias, layer);
  if (config_.balances_by("sinkhorn") && step.training) {
    by.preferences = sinkhorn_plan(context, *sharing_, step.windows, logits);
  }
  by.given = step.choices.use == ExpertChoices::Use::replay;
  if (by.given) replay_choice(context.exec, step, layer, chosen);
  const ops::RouteStatistics statistics = make_statistics(
      context.scratch, step.windows, tokens, config_, ops::chooses_by_more_than_scores(rule_, by));
  ops::route(context.exec, logits, rule_, by, routed, statistics);
  if (step.counts) record_choice(context.exec, step, layer, chosen);
  saved.of_logits = sigmoid ? logits : routed.scores;
  saved.lse = routed.lse;
  saved.weights = routed.weights;
  saved.experts = chosen;
  saved.sequence_offsets = step.windows.sequence_offsets;
  saved.balance = balance(context, config_, *sharing_, *dp_, step, statistics, type_, layer);

  const AnyIn weights =
      in_type(context, keep, weight_.spec().type,
              AnyIn(type_, saved.weights.data(), {tokens * config_.top_k, 1, 1}, 1));
  if (config_.capacity_factor > 0 && step.training) {
    saved.capacity.emplace(context, config_, *sharing_, step.windows, chosen, weights);
    if (step.counts) saved.capacity->count(context.exec, step.statistics, layer);
    return saved.capacity->routing();
  }
  saved.capacity.reset();
  return make_routing_plan(context, config_.num_experts,
                           uniform_offsets(context, tokens, config_.top_k),
                           View1<const int>(chosen.data(), chosen.size()), weights);
}

void Router::move_input(Saved& saved, const AnyIn& x) const {
  if (!noise_.jitters(saved.step)) saved.x = x;  // what is jittered is kept itself
}

void Router::backward(const Context& context, const Saved& saved, const AnyIn& dweights,
                      const AnyView& dx) const {
  const ArenaScope scope(context.scratch);
  const std::int64_t tokens = dx.extent(0);
  const AnyView d_logits = context.scratch.make(type_, tokens, config_.num_experts);
  const AnyIn d_choices =
      saved.capacity ? saved.capacity->gradient_of_choices(context, dweights) : dweights;
  const AnyIn d_weights = in_type(context, context.scratch, type_, d_choices);
  ops::route_backward(
      context.exec,
      {saved.of_logits, saved.lse, saved.weights, d_weights.reshape(tokens, config_.top_k),
       saved.experts, saved.sequence_offsets, saved.balance.slope, saved.balance.z_scale, rule_},
      d_logits);
  if (!noise_.jitters(saved.step)) {
    add_router_gradients(context, weight_, d_logits, saved.x, dx);
    return;
  }
  const AnyView d_jittered = context.scratch.make(dx.type(), tokens, dx.extent(1));
  ops::fill_zero(context.exec, d_jittered);
  add_router_gradients(context, weight_, d_logits, saved.x, d_jittered);
  noise_.jitter(context.exec, saved.step, d_jittered, d_jittered);
  ops::add(context.exec, dx, d_jittered, dx);
}

}  // namespace konclave
