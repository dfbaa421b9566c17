#pragma once

#include "layers/context.hpp"
#include "layers/parameter.hpp"

#include <string>

namespace konclave {

struct ExpertsConfig {
  int experts = 0;          ///< of the whole layer
  int rank = 0, ranks = 1;  ///< this rank holds the rank-th of `ranks` equal parts of them
  int hidden = 0, ffn = 0;
  DType type = DType::fp32;
  double init_std = 0.02, output_init_std = 0.02;
};

/// The L SwiGLU experts of this rank as grouped products over rows sorted by expert:
///   h = p * silu(x Wg[e]^T) * (x Wu[e]^T),   y = h Wd[e]^T
/// The routing weight p is applied between activation and second matrix, so that its gradient
/// needs no expert output. Shapes  x, y (R,H)   p (R)   offsets (L+1)   Wg, Wu (L,F,H)   Wd
/// (L,H,F).
class Experts {
 public:
  struct Saved {
    AnyIn x, weights;
    View1<const int> offsets;
    AnyView gate, up;  ///< (R,F)
  };

  Experts(const std::string& name, const ExpertsConfig& config, const ParameterStorage& storage);

  void prepare(const ExecSpace& exec, Operations& operations);

  /// What backward needs, without y. Any number of rows for each expert, none included.
  void start(const Context& context, const View1<const int>& offsets, const AnyIn& x,
             const AnyIn& weights, Saved& saved) const;
  /// Overwrites y.
  void forward(const Context& context, const View1<const int>& offsets, const AnyIn& x,
               const AnyIn& weights, Saved& saved, const AnyView& y) const;
  /// Overwrites dx, which may be dy, and dweights (R); adds to the parameters' gradients.
  void backward(const Context& context, const Saved& saved, const AnyIn& dy,
                const AnyView& dweights, const AnyView& dx) const;

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

  int local() const { return config_.experts / config_.ranks; }

  ExpertsConfig config_;
  Parameter gate_, up_, down_;
};

}  // namespace konclave
