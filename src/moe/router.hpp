#pragma once

#include "layers/context.hpp"
#include "layers/parameter.hpp"
#include "moe/balance.hpp"
#include "moe/capacity.hpp"
#include "moe/config.hpp"
#include "moe/router_noise.hpp"
#include "moe/routing_plan.hpp"
#include "parallel/groups.hpp"

#include <optional>
#include <string>

namespace konclave {

/// Top-k router: logits l = x Wr^T, experts and weights by ops::route, auxiliary and z-loss by
/// `balance`.
/// Shapes  x (T,H)   Wr (E,H)   l (T,E).    All of it is in the router's type: fp32, or fp64 in an
/// fp64 model or with moe.router_dtype = "fp64". Wr, whole on every rank, is kept in the
/// accumulation type of the model, and so are the weights of the plan; the tokens of a routing
/// window are spread over the ranks of tp and cp.
class Router {
 public:
  struct Saved {
    AnyIn x;             ///< (T,H)
    AnyIn of_logits;     ///< (T,E): scores of a softmax, logits of a sigmoid
    AnyIn lse, weights;  ///< ops::route
    View2<const int> experts;
    View1<const int> sequence_offsets;  ///< (Q+1)
    Balance balance;
    MoeStep step;
    std::optional<CapacityPlan> capacity;  ///< where tokens may be dropped
  };

  Router(const std::string& name, int hidden, double init_std, DType type, const MoeConfig& config,
         const Groups& groups, const ParameterStorage& storage);

  void prepare(const ExecSpace& exec, Operations& operations);

  /// `x` has to live until backward.
  /// `layer` counts MoE layers: the row of this one in statistics and state.
  RoutingPlan forward(const Context& context, const AnyIn& x, const MoeStep& step, int layer,
                      Saved& saved) const;

  /// For backward, where the input of forward is now, if not where it was.
  void move_input(Saved& saved, const AnyIn& x) const;

  /// Adds to dx (T,H) what reaches the input through the weights (dweights (A), the order of the
  /// plan's assignments) and through the auxiliary and z-losses.
  void backward(const Context& context, const Saved& saved, const AnyIn& dweights,
                const AnyView& dx) const;

  template <typename Visitor> void visit_parameters(Visitor&& visit) { visit(weight_); }

 private:
  MoeConfig config_;
  ops::RouteRule rule_;
  RouterNoise noise_;
  DType type_;
  Groups::Group sharing_, dp_;
  Parameter weight_;
};

}  // namespace konclave
