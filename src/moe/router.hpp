#pragma once

#include "layers/context.hpp"
#include "layers/parameter.hpp"
#include "moe/balance.hpp"
#include "moe/config.hpp"
#include "moe/routing_plan.hpp"
#include "parallel/groups.hpp"

#include <string>

namespace konclave {

/// Top-k softmax router: logits l = x Wr^T in fp32 (fp64 in an fp64 model), experts and weights by
/// ops::route, auxiliary and z-loss over the routing windows.
/// Shapes  x (T,H)   Wr (E,H)   l (T,E).    Wr is kept in the router's type, whole on every rank;
/// the tokens of a routing window are spread over the ranks of tp and cp.
class Router {
 public:
  struct Saved {
    AnyIn x;              ///< (T,H) in the router's type
    AnyView scores, lse;  ///< ops::route
    AnyView weights;      ///< (T,K)
    View2<const int> experts;
    RoutingWindows windows;
    Balance balance;
  };

  /// `token_offsets` of the plan are t*K: every token has K experts.
  Router(const std::string& name, int hidden, double init_std, DType type, const MoeConfig& config,
         const Groups& groups, const ParameterStorage& storage);

  void prepare(const ExecSpace& exec, Operations& operations);

  /// `x` has to live until backward.
  /// `layer` counts MoE layers: the row of this one in statistics and state.
  RoutingPlan forward(const Context& context, const AnyIn& x, const MoeStep& step, int layer,
                      Saved& saved) const;

  /// Adds to dx (T,H) what reaches the input through the weights (dweights (A), the order of the
  /// plan's assignments) and through the auxiliary and z-losses.
  void backward(const Context& context, const Saved& saved, const AnyIn& dweights,
                const AnyView& dx) const;

  template <typename Visitor> void visit_parameters(Visitor&& visit) { visit(weight_); }

 private:
  void add_data_gradient(const Context& context, const AnyIn& d_logits, const AnyView& dx) const;

  MoeConfig config_;
  Groups::Group sharing_;
  Parameter weight_;
};

}  // namespace konclave
