#include "moe/router.hpp"

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

/// x itself where it has the router's type.
AnyIn in_router_type(const Context& context, DType type, const AnyIn& x) {
  if (x.type() == type) return x;
  const AnyView wide = context.activations.make(type, x.extent(0), x.extent(1));
  ops::cast(context.exec, x, wide);
  return wide;
}

}  // namespace

Router::Router(const std::string& name, int hidden, double init_std, DType type,
               const MoeConfig& config, const Groups& groups, const ParameterStorage& storage)
    : config_(config),
      sharing_(groups.tp_cp),
      weight_({name + ".weight", {config.num_experts, hidden}, accum_type(type), init_std},
              Placement::outside({config.num_experts, hidden}, TensorParallel(groups)), storage) {}

void Router::prepare(const ExecSpace& exec, Operations& operations) {
  weight_.prepare(exec, operations, 0);
}

RoutingPlan Router::forward(const Context& context, const AnyIn& x, const MoeStep& step, int layer,
                            Saved& saved) const {
  const ArenaScope scope(context.scratch);
  const std::int64_t tokens = x.extent(0), experts = config_.num_experts;
  const DType type = weight_.spec().type;
  Arena& keep = context.activations;

  saved.x = in_router_type(context, type, x);
  const AnyView logits = context.scratch.make(type, tokens, experts);
  context.operations.gemm(context.exec, weight_.gemm_shape(GemmKind::forward),
                          {saved.x, &weight_.prepared(GemmKind::forward), {}, logits, {}});

  const auto chosen = keep.make1<int>(tokens * config_.top_k);
  const View2<int> choice(chosen.data(), static_cast<std::size_t>(tokens),
                          static_cast<std::size_t>(config_.top_k));
  saved.scores = keep.make(type, tokens, experts);
  saved.lse = keep.make(type, tokens);
  saved.weights = keep.make(type, tokens, config_.top_k);
  saved.experts = choice;
  ops::route(context.exec, logits, config_.pre_softmax,
             {saved.scores, saved.lse, choice, saved.weights});

  saved.windows = step.windows;
  saved.balance =
      balance(context, config_, *sharing_, step, saved.scores, saved.lse, choice, layer);
  const AnyIn weights(type, saved.weights.data(), {tokens * config_.top_k, 1, 1}, 1);
  return make_routing_plan(context, config_.num_experts,
                           uniform_offsets(context, tokens, config_.top_k), chosen, weights);
}

void Router::backward(const Context& context, const Saved& saved, const AnyIn& dweights,
                      const AnyView& dx) const {
  const ArenaScope scope(context.scratch);
  const DType type = weight_.spec().type;
  const std::int64_t tokens = dx.extent(0);
  const AnyView d_logits = context.scratch.make(type, tokens, config_.num_experts);
  ops::route_backward(
      context.exec,
      {saved.scores, saved.lse, saved.weights, dweights.reshape(tokens, config_.top_k),
       saved.experts, saved.windows.offsets, saved.balance.slope, saved.balance.z_scale,
       config_.pre_softmax},
      d_logits);
  context.operations.gemm(context.exec, weight_.next_gradient_shape(),
                          {d_logits, nullptr, saved.x, weight_.grad(), {}});
  add_data_gradient(context, d_logits, dx);
}

void Router::add_data_gradient(const Context& context, const AnyIn& d_logits,
                               const AnyView& dx) const {
  GemmShape shape = weight_.gemm_shape(GemmKind::data_gradient);
  shape.accumulate = dx.type() == shape.type;
  const AnyView product =
      shape.accumulate ? dx : context.scratch.make(shape.type, dx.extent(0), dx.extent(1));
  context.operations.gemm(context.exec, shape,
                          {d_logits, &weight_.prepared(GemmKind::data_gradient), {}, product, {}});
  if (!shape.accumulate) ops::add(context.exec, dx, product, dx);
}

}  // namespace konclave
