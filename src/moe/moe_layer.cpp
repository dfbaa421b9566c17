#include "moe/moe_layer.hpp"

namespace konclave {

MoeLayer::MoeLayer(const std::string& name, int index, const MoeLayerConfig& config,
                   const ParameterStorage& storage)
    : index_(index),
      config_(config),
      router_(name + ".router", config.hidden, config.init_std, config.type, config.moe, storage),
      experts_(name + ".experts",
               {config.moe.num_experts, config.hidden, config.moe.ffn_hidden_size, config.type,
                config.init_std, config.output_init_std},
               storage) {}

void MoeLayer::prepare(const ExecSpace& exec, Operations& operations) {
  router_.prepare(exec, operations);
  experts_.prepare(exec, operations);
}

void MoeLayer::forward(const Context& context, const MoeStep& step, const AnyIn& x, Saved& saved,
                       const AnyView& y) const {
  saved.plan =
      router_.forward(context, x, step.windows, step.scale, index_, step.statistics, saved.router);
  const std::int64_t rows = saved.plan.assignments();
  const AnyView sent = context.activations.make(config_.type, rows, config_.hidden);
  const AnyView weights = context.activations.make(saved.plan.weights.type(), rows);
  dispatcher_.dispatch(context, saved.plan, x, sent);
  dispatcher_.dispatch_weights(context, saved.plan, weights);

  const ArenaScope scope(context.scratch);
  const AnyView computed = context.scratch.make(config_.type, rows, config_.hidden);
  experts_.forward(context, saved.plan.expert_offsets, sent, weights, saved.experts, computed);
  dispatcher_.combine(context, saved.plan, computed, y);
}

void MoeLayer::backward(const Context& context, const Saved& saved, const AnyIn& dy,
                        const AnyView& dx) const {
  const ArenaScope scope(context.scratch);
  const std::int64_t rows = saved.plan.assignments();
  const DType router_type = saved.plan.weights.type();
  const AnyView d_rows = context.scratch.make(config_.type, rows, config_.hidden);
  const AnyView d_weights = context.scratch.make(router_type, rows);
  const AnyView d_assignments = context.scratch.make(router_type, rows);
  dispatcher_.combine_backward(context, saved.plan, dy, d_rows);
  experts_.backward(context, saved.experts, d_rows, d_weights, d_rows);
  dispatcher_.return_weights(context, saved.plan, d_weights, d_assignments);
  dispatcher_.dispatch_backward(context, saved.plan, d_rows, dx);
  router_.backward(context, saved.router, d_assignments, dx);
}

}  // namespace konclave
