#pragma once

#include "layers/context.hpp"
#include "layers/parameter.hpp"
#include "parallel/groups.hpp"

#include <string>

namespace konclave {

struct ExpertsConfig {
  int experts = 0;  ///< of the whole layer
  int hidden = 0, ffn = 0;
  DType type = DType::fp32;
  double init_std = 0.02, output_init_std = 0.02;
};

/// The L SwiGLU experts of this rank as grouped products over rows sorted by expert:
///   h = p * silu(x Wg[e]^T) * (x Wu[e]^T),   y = h Wd[e]^T
/// The routing weight p is applied between activation and second matrix, so that its gradient
/// needs no expert output. The ranks of ep share the experts, and those of etp the ffn size of
/// each: what the products with Wd and the gradients of x and p give are then parts of a sum over
/// etp. Shapes  x, y (R,H)   p (R)   offsets (L+1)   Wg, Wu (L,F/etp,H)   Wd (L,H,F/etp).
class Experts {
 public:
  struct Saved {
    AnyIn x, weights;
    View1<const int> offsets;
    AnyView gate, up;  ///< (R,F/etp)
  };

  Experts(const std::string& name, const ExpertsConfig& config, const Groups& groups,
          const ParameterStorage& storage);

  void prepare(const ExecSpace& exec, Operations& operations);

  /// What backward needs, without y. Any number of rows for each expert, none included.
  void start(const Context& context, const View1<const int>& offsets, const AnyIn& x,
             const AnyIn& weights, Saved& saved) const;
  /// Overwrites y.
  void forward(const Context& context, const View1<const int>& offsets, const AnyIn& x,
               const AnyIn& weights, Saved& saved, const AnyView& y) const;
  /// Overwrites dx, which may be dy, and dweights (R); adds to the gradients of Wd. Once for each
  /// forward: the gradients of gate and up take the place of what was saved.
  void backward(const Context& context, const Saved& saved, const AnyIn& dy,
                const AnyView& dweights, const AnyView& dx) const;
  /// Behind it: adds to the gradients of Wg and Wu.
  void finish_backward(const Context& context, const Saved& saved) const;

  template <typename Visitor> void visit_parameters(Visitor&& visit) {
    for (Parameter* weight : {&gate_, &up_, &down_}) visit(*weight);
  }

 private:
  void forward_product(const Context& context, const Parameter& weight,
                       const View1<const int>& offsets, const AnyIn& x, const AnyView& y) const;
  void data_gradient(const Context& context, const Parameter& weight,
                     const View1<const int>& offsets, const AnyIn& dy, bool add,
                     const AnyView& dx) const;
  void weight_gradient(const Context& context, const Parameter& weight,
                       const View1<const int>& offsets, const AnyIn& x, const AnyIn& dy) const;

  int local() const { return static_cast<int>(gate_.shard().extent[0]); }
  std::int64_t ffn() const { return gate_.shard().extent[1]; }

  DType type_;
  Parameter gate_, up_, down_;
};

}  // namespace konclave
