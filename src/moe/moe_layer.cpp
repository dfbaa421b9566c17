#include "moe/moe_layer.hpp"

namespace konclave {

MoeLayer::MoeLayer(const std::string& name, int index, const MoeLayerConfig& config,
                   const Groups& groups, const ParameterStorage& storage)
    : index_(index),
      config_(config),
      router_(name + ".router", config.hidden, config.init_std, config.type, config.moe, storage),
      dispatcher_(groups.ep, config.moe.num_experts, config.moe.receive_budget),
      experts_(name + ".experts",
               {config.moe.num_experts, dispatcher_.rank(), dispatcher_.ranks(), config.hidden,
                config.moe.ffn_hidden_size, config.type, config.init_std, config.output_init_std},
               storage) {}

void MoeLayer::prepare(const ExecSpace& exec, Operations& operations) {
  router_.prepare(exec, operations);
  experts_.prepare(exec, operations);
}

MoeLayer::Received MoeLayer::receive(const Context& context, Arena& keep, const Saved& saved,
                                     const DispatchPlan::Round& round) const {
  const Received received{keep.make(config_.type, round.counts.received, config_.hidden),
                          keep.make(saved.routing.weights.type(), round.counts.received)};
  dispatcher_.dispatch(context, saved.dispatch, round, saved.x, received.rows,
                       saved.routing.weights, received.weights);
  return received;
}

void MoeLayer::forward(const Context& context, const MoeStep& step, const AnyIn& x, Saved& saved,
                       const AnyView& y) const {
  saved.x = x;
  saved.routing =
      router_.forward(context, x, step.windows, step.scale, index_, step.statistics, saved.router);
  saved.dispatch = dispatcher_.plan(context, saved.routing);
  const bool kept = saved.dispatch.rounds.size() == 1;

  const ArenaScope scope(context.scratch);
  const AnyView sent =
      context.scratch.make(config_.type, saved.routing.assignments(), config_.hidden);
  for (const DispatchPlan::Round& round : saved.dispatch.rounds) {
    const ArenaScope round_scope(context.scratch);
    const Context inner{context.exec, context.operations,
                        kept ? context.activations : context.scratch, context.scratch};
    const Received received = receive(context, inner.activations, saved, round);
    const AnyView results = dispatcher_.workplace(context, round, sent);
    experts_.forward(inner, round.expert_offsets, received.rows, received.weights, saved.experts,
                     results);
    dispatcher_.give_back(context, round, results, sent);
  }
  dispatcher_.combine(context, saved.dispatch, sent, y);
}

void MoeLayer::backward(const Context& context, const Saved& saved, const AnyIn& dy,
                        const AnyView& dx) const {
  const ArenaScope scope(context.scratch);
  const std::int64_t assignments = saved.routing.assignments();
  const DType router_type = saved.routing.weights.type();
  const bool kept = saved.dispatch.rounds.size() == 1;
  const AnyView d_sent = context.scratch.make(config_.type, assignments, config_.hidden);
  const AnyView d_sent_weights = context.scratch.make(router_type, assignments);
  for (const DispatchPlan::Round& round : saved.dispatch.rounds) {
    const ArenaScope round_scope(context.scratch);
    Experts::Saved experts = saved.experts;
    if (!kept) {
      const Context inner{context.exec, context.operations, context.scratch, context.scratch};
      const Received received = receive(context, context.scratch, saved, round);
      experts_.start(inner, round.expert_offsets, received.rows, received.weights, experts);
    }
    const AnyView d_rows = dispatcher_.workplace(context, round, d_sent);
    const AnyView d_weights = dispatcher_.workplace(context, round, d_sent_weights);
    dispatcher_.dispatch(context, saved.dispatch, round, dy, d_rows);
    experts_.backward(context, experts, d_rows, d_weights, d_rows);
    dispatcher_.give_back(context, round, d_rows, d_sent, d_weights, d_sent_weights);
  }
  const AnyView d_assignments = context.scratch.make(router_type, assignments);
  dispatcher_.values_of_assignments(context, saved.dispatch, d_sent_weights, d_assignments);
  dispatcher_.combine(context, saved.dispatch, d_sent, dx);
  router_.backward(context, saved.router, d_assignments, dx);
}

}  // namespace konclave
