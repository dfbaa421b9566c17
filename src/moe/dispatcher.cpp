#include "moe/dispatcher.hpp"

#include "ops/embedding.hpp"
#include "ops/permute.hpp"

namespace konclave {

void Dispatcher::dispatch(const Context& context, const RoutingPlan& plan, const AnyIn& x,
                          const AnyView& rows) const {
  ops::gather_rows(context.exec, x, plan.token_of, rows);
}

void Dispatcher::dispatch_backward(const Context& context, const RoutingPlan& plan,
                                   const AnyIn& drows, const AnyView& dx) const {
  ops::combine_rows(context.exec, drows, plan.token_offsets, plan.row_of, dx);
}

void Dispatcher::dispatch_weights(const Context& context, const RoutingPlan& plan,
                                  const AnyView& weights) const {
  ops::gather_values(context.exec, plan.weights, plan.assignment_of, weights);
}

void Dispatcher::return_weights(const Context& context, const RoutingPlan& plan,
                                const AnyIn& dweights, const AnyView& result) const {
  ops::gather_values(context.exec, dweights, plan.row_of, result);
}

void Dispatcher::combine(const Context& context, const RoutingPlan& plan, const AnyIn& rows,
                         const AnyView& y) const {
  ops::combine_rows(context.exec, rows, plan.token_offsets, plan.row_of, y);
}

void Dispatcher::combine_backward(const Context& context, const RoutingPlan& plan, const AnyIn& dy,
                                  const AnyView& drows) const {
  ops::gather_rows(context.exec, dy, plan.token_of, drows);
}

}  // namespace konclave
