#include "moe/moe_layer.hpp"

#include "ops/elementwise.hpp"

namespace konclave {

namespace {

/// Draws the time of a part of the layer.
TraceSpan part(const Context& context, std::string_view name) {
  return {context.trace, name, "moe"};
}

}  // namespace

MoeLayer::MoeLayer(const std::string& name, int index, const MoeLayerConfig& config,
                   const Groups& groups, const ParameterStorage& storage)
    : index_(index),
      config_(config),
      router_(name + ".router", config.hidden, config.init_std, config.type, config.moe, groups,
              storage),
      dispatcher_(make_dispatcher(config.moe, groups)),
      experts_(name + ".experts",
               {config.moe.num_experts, config.hidden, config.moe.ffn_hidden_size, config.type,
                config.init_std, config.output_init_std},
               groups, storage) {
  if (config.moe.shared_ffn_hidden_size > 0) {
    shared_.emplace(name + ".shared_experts",
                    MlpConfig{config.hidden, config.moe.shared_ffn_hidden_size, config.type,
                              config.init_std, config.output_init_std},
                    config.moe.shared_gate, groups, storage);
  }
  require(groups.tp->size() == 1 || groups.parallel.sp,
          name + ": an MoE layer with parallel.tp > 1 needs parallel.sp");
}

void MoeLayer::prepare(const ExecSpace& exec, Operations& operations) {
  router_.prepare(exec, operations);
  experts_.prepare(exec, operations);
  if (shared_) shared_->prepare(exec, operations);
}

MoeLayer::Received MoeLayer::receive(const Context& context, Arena& keep, const Saved& saved,
                                     std::size_t round) const {
  const std::int64_t rows = saved.dispatch->rounds()[round].rows;
  const TraceSpan span = part(context, "permute");
  const Received received{keep.make(config_.type, rows, config_.hidden),
                          keep.make(saved.routing.weights.type(), rows)};
  saved.dispatch->bring(context, round, saved.x, received.rows, saved.routing.weights,
                        received.weights);
  return received;
}

void MoeLayer::forward(const Context& context, const MoeStep& step, const AnyIn& x,
                       const AnyIn& residual, Saved& saved, const AnyView& y) const {
  saved.x = x;
  {
    const TraceSpan span = part(context, "router");
    saved.routing = router_.forward(context, x, step, index_, saved.router);
  }
  {
    const TraceSpan span = part(context, "plan");
    saved.dispatch = dispatcher_->plan(context, saved.routing);
  }
  const Dispatch& dispatch = *saved.dispatch;
  const bool kept = dispatch.rounds().size() == 1;

  const ArenaScope scope(context.scratch);
  const AnyView returned = dispatch.returned_rows(context, y);
  for (std::size_t round = 0; round < dispatch.rounds().size(); ++round) {
    const ArenaScope round_scope(context.scratch);
    const Context inner{context.exec, context.operations,
                        kept ? context.activations : context.scratch, context.scratch,
                        context.trace};
    const Received received = receive(context, inner.activations, saved, round);
    const AnyView results = dispatch.workplace(context, round, returned);
    {
      const TraceSpan span = part(context, "experts");
      experts_.forward(inner, dispatch.rounds()[round].expert_offsets, received.rows,
                       received.weights, saved.experts, results);
    }
    const TraceSpan span = part(context, "combine");
    dispatch.give_back(context, round, results, returned);
  }
  {
    const TraceSpan span = part(context, "combine");
    dispatch.combine(context, returned, residual, y);
  }
  if (shared_) {
    const Arena::Mark mark = context.activations.mark();
    shared_->forward(context, x, saved.shared, y);
    if (shared_again_) context.activations.rewind(mark);
  }
}

void MoeLayer::move_input(Saved& saved, const AnyIn& x) const {
  saved.x = x;
  router_.move_input(saved.router, x);
  saved.shared.x = x;
  saved.shared.mlp.x = x;
}

void MoeLayer::backward(const Context& context, const Saved& saved, const AnyIn& dy,
                        const AnyView& dx) const {
  const ArenaScope scope(context.scratch);
  AnyView d_shared;  // dx may be dy, so this comes first
  if (shared_) {
    d_shared = context.scratch.make(dx.type(), dx.extent(0), dx.extent(1));
    const ArenaScope again_scope(context.activations);
    SharedExperts::Saved shared = saved.shared;
    if (shared_again_) {
      ops::fill_zero(context.exec, d_shared);  // is added to, and not needed
      shared_->forward(context, saved.x, shared, d_shared);
    }
    shared_->backward(context, shared, dy, d_shared);
  }
  const Dispatch& dispatch = *saved.dispatch;
  const bool kept = dispatch.rounds().size() == 1;
  const AnyView returned = dispatch.returned_rows(context, dx);
  const AnyView returned_weights = dispatch.returned_values(context, saved.routing.weights.type());
  for (std::size_t round = 0; round < dispatch.rounds().size(); ++round) {
    const ArenaScope round_scope(context.scratch);
    Experts::Saved experts = saved.experts;
    if (!kept) {
      const Context inner{context.exec, context.operations, context.scratch, context.scratch};
      const Received received = receive(context, context.scratch, saved, round);
      experts_.start(inner, dispatch.rounds()[round].expert_offsets, received.rows,
                     received.weights, experts);
    }
    const AnyView d_rows = dispatch.workplace(context, round, returned);
    const AnyView d_weights = dispatch.workplace(context, round, returned_weights);
    {
      const TraceSpan span = part(context, "permute");
      dispatch.bring(context, round, dy, d_rows);
    }
    {
      const TraceSpan span = part(context, "experts");
      experts_.backward(context, experts, d_rows, d_weights, d_rows);
    }
    const TraceSpan span = part(context, "combine");
    dispatch.give_back(context, round, d_rows, returned, d_weights, returned_weights);
  }
  AnyView d_assignments;
  {
    const TraceSpan span = part(context, "combine");
    d_assignments = dispatch.combine_with_values(context, returned, returned_weights, dx);
  }
  {
    const TraceSpan span = part(context, "router");
    router_.backward(context, saved.router, d_assignments, dx);
  }
  if (shared_) ops::add(context.exec, dx, d_shared, dx);
}

}  // namespace konclave
