#pragma once

#include "moe/dispatcher.hpp"
#include "moe/experts.hpp"
#include "moe/moe_step.hpp"
#include "moe/router.hpp"
#include "moe/shared_experts.hpp"
#include "parallel/groups.hpp"

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace konclave {

struct MoeLayerConfig {
  MoeConfig moe;
  int hidden = 0;
  DType type = DType::fp32;
  double init_std = 0.02, output_init_std = 0.02;
};

/// y[t] = residual[t] + sum over the chosen experts of p[t,e] expert_e(x[t]) + shared(x[t]),
/// without the residual where it is empty, and without shared experts where the model has none.
/// Shapes  x, residual, y (T,H).
/// router -> dispatch -> experts -> combine; dropless. T are the rows that this rank has outside
/// the region of tp: ranks of tp and cp are sources of tokens as all others are, and nothing is
/// gathered before the router. The experts are spread over the ranks of the groups ep and etp.
/// Under moe.receive_budget they may get their rows in several rounds: then what backward needs of
/// them is not kept but sent and computed again, so that memory is bounded.
/// With parallel.overlap_ep the shared experts work, forward and backward, while the first rows are
/// on their way, and the experts on one round while others travel; every sum keeps its order but
/// those of the experts' weight gradients, which are added up round by round.
class MoeLayer {
 public:
  struct Saved {
    Router::Saved router;
    AnyIn x;  ///< (T,H)
    RoutingPlan routing;
    std::shared_ptr<const Dispatch> dispatch;
    std::vector<Experts::Saved> experts;  ///< of each round, where they are kept
    SharedExperts::Saved shared;
  };

  /// `index` counts MoE layers: the row of this one in the statistics.
  MoeLayer(const std::string& name, int index, const MoeLayerConfig& config, const Groups& groups,
           const ParameterStorage& storage);

  void prepare(const ExecSpace& exec, Operations& operations);

  /// Whether what shared experts keep is made again for backward.
  void repeat_shared(bool again) { shared_again_ = again; }

  /// Overwrites y. `x` has to live until backward.
  void forward(const Context& context, const MoeStep& step, const AnyIn& x, const AnyIn& residual,
               Saved& saved, const AnyView& y) const;
  /// For backward, where the input of forward is now, if not where it was.
  void move_input(Saved& saved, const AnyIn& x) const;
  /// Overwrites dx, which may be dy, with the gradient by x alone; adds to the parameters'
  /// gradients. Once for each forward, as Experts.
  void backward(const Context& context, const Saved& saved, const AnyIn& dy,
                const AnyView& dx) const;

  template <typename Visitor> void visit_parameters(Visitor&& visit) {
    router_.visit_parameters(visit);
    experts_.visit_parameters(visit);
    if (shared_) shared_->visit_parameters(visit);
  }

 private:
  struct Received {
    std::vector<AnyView> rows, weights;  ///< (R,H), (R) of each round
  };
  /// Memory for rows and weights at the experts: activations where they are kept.
  Received make_received(const Context& context, const Saved& saved) const;
  std::unique_ptr<WayThere> way_of_rows(const Context& context, const Saved& saved,
                                        const Received& received) const;

  /// What shared experts make of x, to be added to y later.
  void start_shared(const Context& context, const AnyIn& x, Saved& saved) const;
  void add_shared(const Context& context, Saved& saved, const AnyView& y) const;
  /// Their gradient by x, in memory of scratch.
  AnyView shared_gradient(const Context& context, const Saved& saved, const AnyIn& dy) const;

  int index_;
  MoeLayerConfig config_;
  Router router_;
  std::shared_ptr<const Dispatcher> dispatcher_;
  Experts experts_;
  std::optional<SharedExperts> shared_;
  bool shared_again_ = false;
};

}  // namespace konclave
