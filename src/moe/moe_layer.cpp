#include "moe/moe_layer.hpp"

#include "ops/elementwise.hpp"

#include <utility>

namespace konclave {

namespace {

/// Draws the time of a part of the layer.
TraceSpan part(const Context& context, std::string_view name) {
  return {context.trace, name, "moe"};
}

/// Lets what is under way go on behind each product, where anything is.
class Polling {
 public:
  Polling(const Context& context, const Dispatch& dispatch, std::vector<WayThere*> there,
          WayBack& back) {
    if (!dispatch.overlaps()) return;
    pause_.emplace(context.operations, [there = std::move(there), &back](const ExecSpace&) {
      for (WayThere* way : there) {
        if (way != nullptr) way->poll();
      }
      back.poll();
    });
  }

 private:
  std::optional<Operations::Pause> pause_;
};

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

MoeLayer::Received MoeLayer::make_received(const Context& context, const Saved& saved) const {
  const Dispatch& dispatch = *saved.dispatch;
  const AnyIn& weights = saved.routing.weights;
  if (!dispatch.kept()) {
    const std::size_t turns = dispatch.turns();
    return {dispatch.by_turns(context, saved.x, turns), dispatch.by_turns(context, weights, turns)};
  }
  std::int64_t rows = 0;
  for (const Dispatch::Round& round : dispatch.rounds()) rows += round.rows;
  return {dispatch.parts(context.activations.make(config_.type, rows, config_.hidden)),
          dispatch.parts(context.activations.make(weights.type(), rows))};
}

std::unique_ptr<WayThere> MoeLayer::way_of_rows(const Context& context, const Saved& saved,
                                                const Received& received) const {
  return saved.dispatch->way_there(
      context, {{saved.x, received.rows}, {saved.routing.weights, received.weights}});
}

void MoeLayer::start_shared(const Context& context, const AnyIn& x, Saved& saved) const {
  Arena& memory = shared_->gated() && !shared_again_ ? context.activations : context.scratch;
  const AnyView output = memory.make(x.type(), x.extent(0), x.extent(1));
  const Arena::Mark mark = context.activations.mark();
  shared_->start(context, x, output, saved.shared);
  if (shared_again_) context.activations.rewind(mark);
}

void MoeLayer::add_shared(const Context& context, Saved& saved, const AnyView& y) const {
  const Arena::Mark mark = context.activations.mark();
  shared_->add(context, saved.shared, y);
  if (shared_again_) context.activations.rewind(mark);
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
  const std::size_t rounds = dispatch.rounds().size();

  const ArenaScope scope(context.scratch);
  const AnyView returned = dispatch.returned_rows(context, y);
  const Received received = make_received(context, saved);
  const std::unique_ptr<WayThere> there = way_of_rows(context, saved, received);
  const std::unique_ptr<WayBack> back = dispatch.way_back(context, {returned});
  const Polling polling(context, dispatch, {there.get()}, *back);
  {
    const TraceSpan span = part(context, "permute");
    there->start(context);
  }
  if (shared_ && dispatch.overlaps()) start_shared(context, x, saved);
  saved.experts.assign(dispatch.kept() ? rounds : 1, {});
  for (std::size_t round = 0; round < rounds; ++round) {
    const ArenaScope round_scope(context.scratch);
    {
      const TraceSpan span = part(context, "permute");
      there->arrive(context, round);
    }
    const Context inner{context.exec, context.operations,
                        dispatch.kept() ? context.activations : context.scratch, context.scratch,
                        context.trace};
    {
      const TraceSpan span = part(context, "experts");
      experts_.forward(inner, dispatch.rounds()[round].expert_offsets, received.rows[round],
                       received.weights[round], saved.experts[dispatch.kept() ? round : 0],
                       back->rows(round));
    }
    const TraceSpan span = part(context, "combine");
    back->give(context, round);
  }
  {
    const TraceSpan span = part(context, "combine");
    back->finish(context);
    dispatch.combine(context, returned, residual, y);
  }
  if (!shared_) return;
  if (!dispatch.overlaps()) start_shared(context, x, saved);
  add_shared(context, saved, y);
}

void MoeLayer::move_input(Saved& saved, const AnyIn& x) const {
  saved.x = x;
  router_.move_input(saved.router, x);
  saved.shared.x = x;
  saved.shared.mlp.x = x;
}

AnyView MoeLayer::shared_gradient(const Context& context, const Saved& saved,
                                  const AnyIn& dy) const {
  const AnyView dx = context.scratch.make(dy.type(), dy.extent(0), dy.extent(1));
  const ArenaScope again_scope(context.activations);
  SharedExperts::Saved shared = saved.shared;
  if (shared_again_) {
    ops::fill_zero(context.exec, dx);  // is added to, and not needed
    shared_->forward(context, saved.x, shared, dx);
  }
  shared_->backward(context, shared, dy, dx);
  return dx;
}

void MoeLayer::backward(const Context& context, const Saved& saved, const AnyIn& dy,
                        const AnyView& dx) const {
  const ArenaScope scope(context.scratch);
  const Dispatch& dispatch = *saved.dispatch;
  AnyView d_shared;  // dx may be dy, so this comes first
  if (shared_ && !dispatch.overlaps()) d_shared = shared_gradient(context, saved, dy);
  const AnyView returned = dispatch.returned_rows(context, dx);
  const AnyView returned_weights = dispatch.returned_values(context, saved.routing.weights.type());
  const std::unique_ptr<WayBack> back = dispatch.way_back(context, {returned, returned_weights});
  const std::unique_ptr<WayThere> there = dispatch.way_there(context, {{dy, back->rows()}});
  Received received;
  std::unique_ptr<WayThere> again;  // of the rows, where they were not kept
  if (!dispatch.kept()) {
    received = make_received(context, saved);
    again = way_of_rows(context, saved, received);
  }
  const Polling polling(context, dispatch, {again.get(), there.get()}, *back);
  {
    const TraceSpan span = part(context, "permute");
    if (again) again->start(context);
    there->start(context);
  }
  if (shared_ && dispatch.overlaps()) d_shared = shared_gradient(context, saved, dy);
  for (std::size_t round = 0; round < dispatch.rounds().size(); ++round) {
    const ArenaScope round_scope(context.scratch);
    Experts::Saved experts;
    if (again) {
      {
        const TraceSpan span = part(context, "permute");
        again->arrive(context, round);
      }
      const Context inner{context.exec, context.operations, context.scratch, context.scratch};
      experts_.start(inner, dispatch.rounds()[round].expert_offsets, received.rows[round],
                     received.weights[round], experts);
    } else {
      experts = saved.experts[round];
    }
    {
      const TraceSpan span = part(context, "permute");
      there->arrive(context, round);
    }
    {
      const TraceSpan span = part(context, "experts");
      experts_.backward(context, experts, back->rows(round), back->values(round),
                        back->rows(round));
    }
    {
      const TraceSpan span = part(context, "combine");
      back->give(context, round);
    }
    const TraceSpan span = part(context, "experts");
    experts_.finish_backward(context, experts);
  }
  AnyView d_assignments;
  {
    const TraceSpan span = part(context, "combine");
    back->finish(context);
    d_assignments = dispatch.combine_with_values(context, returned, returned_weights, dx);
  }
  {
    const TraceSpan span = part(context, "router");
    router_.backward(context, saved.router, d_assignments, dx);
  }
  if (shared_) ops::add(context.exec, dx, d_shared, dx);
}

}  // namespace konclave
