#pragma once

#include "moe/dispatcher.hpp"
#include "moe/experts.hpp"
#include "moe/router.hpp"

#include <string>

namespace konclave {

struct MoeLayerConfig {
  MoeConfig moe;
  int hidden = 0;
  DType type = DType::fp32;
  double init_std = 0.02, output_init_std = 0.02;
};

/// What a step hands to every MoE layer.
struct MoeStep {
  RoutingWindows windows;
  BalanceScale scale;
  MoeStatistics statistics;
};

/// y[t] = sum over the chosen experts of p[t,e] expert_e(x[t]).   Shapes  x, y (T,H).
/// router -> dispatch -> experts -> combine; dropless.
class MoeLayer {
 public:
  struct Saved {
    Router::Saved router;
    RoutingPlan plan;
    Experts::Saved experts;
  };

  /// `index` counts MoE layers: the row of this one in the statistics.
  MoeLayer(const std::string& name, int index, const MoeLayerConfig& config,
           const ParameterStorage& storage);

  void prepare(const ExecSpace& exec, Operations& operations);

  /// Overwrites y.
  void forward(const Context& context, const MoeStep& step, const AnyIn& x, Saved& saved,
               const AnyView& y) const;
  /// Overwrites dx, which may be dy; adds to the parameters' gradients.
  void backward(const Context& context, const Saved& saved, const AnyIn& dy,
                const AnyView& dx) const;

  template <typename Visitor> void visit_parameters(Visitor&& visit) {
    router_.visit_parameters(visit);
    experts_.visit_parameters(visit);
  }

 private:
  int index_;
  MoeLayerConfig config_;
  Router router_;
  Dispatcher dispatcher_;
  Experts experts_;
};

}  // namespace konclave
