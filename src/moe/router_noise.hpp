#pragma once

#include "layers/context.hpp"
#include "moe/config.hpp"
#include "moe/moe_step.hpp"

#include <string>

namespace konclave {

/// What is random in a router, in training alone. Numbers are drawn by the seed of the run, the
/// name of the router, and the number of a token among all that the run trains on: so they are the
/// same on whichever ranks and in whichever micro-batches a token is, and new ones in every step.
class RouterNoise {
 public:
  RouterNoise(const std::string& name, const MoeConfig& config);

  bool jitters(const MoeStep& step) const { return step.training && jitter_ > 0; }
  /// y[t,h] = x[t,h] (1 + moe.input_jitter r),  r uniform in [-1, 1). The same factors bring a
  /// gradient by y back to x.   Shapes  x, y (T,H) of one type; y may be x.
  void jitter(const ExecSpace& exec, const MoeStep& step, const AnyIn& x, const AnyView& y) const;

  /// With moe.force_load_balancing, overwrites the logits (T,E):
  ///   l[t,e] = normal(0,1) + normal(0, |moe.force_bias|), the second the same for all tokens: of a
  ///   step where moe.force_bias is above 0, of the run where it is below
  /// For measurements of what balance does: gradients go on as if the logits had been computed.
  void force(const ExecSpace& exec, const MoeStep& step, const AnyView& logits) const;

 private:
  std::string name_;
  double jitter_, bias_;
  bool forced_;
};

}  // namespace konclave
