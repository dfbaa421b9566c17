#pragma once

#include "moe/routing_plan.hpp"

namespace konclave {

/// Moves rows from tokens to experts and back, as a plan says. On one rank all experts are local
/// and dispatch is a permutation.
/// Shapes  x, y, dx, dy (T,H)   rows (A,H)   weights (A), in row order on the experts' side.
class Dispatcher {
 public:
  /// rows[row_of(a)] = x[token of a].
  void dispatch(const Context& context, const RoutingPlan& plan, const AnyIn& x,
                const AnyView& rows) const;
  /// dx[t] = sum over the assignments of t of drows, in ascending order of expert. Overwrites dx.
  void dispatch_backward(const Context& context, const RoutingPlan& plan, const AnyIn& drows,
                         const AnyView& dx) const;

  /// The weight of each row.
  void dispatch_weights(const Context& context, const RoutingPlan& plan,
                        const AnyView& weights) const;
  /// Gradients of the weights, back in the order of assignments.
  void return_weights(const Context& context, const RoutingPlan& plan, const AnyIn& dweights,
                      const AnyView& result) const;

  /// y[t] = sum over the assignments of t of the experts' rows, in ascending order of expert. The
  /// rows come weighted.
  void combine(const Context& context, const RoutingPlan& plan, const AnyIn& rows,
               const AnyView& y) const;
  /// drows[row_of(a)] = dy[token of a].
  void combine_backward(const Context& context, const RoutingPlan& plan, const AnyIn& dy,
                        const AnyView& drows) const;
};

}  // namespace konclave
