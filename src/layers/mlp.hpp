#pragma once

#include "layers/linear.hpp"

#include <string>

namespace konclave {

struct MlpConfig {
  int hidden = 0, ffn = 0;
  DType type = DType::fp32;
  double init_std = 0.02, output_init_std = 0.02;
};

/// Dense SwiGLU MLP: y = (silu(x Wg^T) * (x Wu^T)) Wd^T.   Shapes  x, y (T,H) of the rows outside.
/// Each rank of tp has a part of the ffn size.
class Mlp {
 public:
  struct Saved {
    AnyIn x;           ///< of the rows outside
    AnyView gate, up;  ///< (rows inside, ffn / tp)
  };

  Mlp(const std::string& name, const MlpConfig& config, const TensorParallel& tp,
      const ParameterStorage& storage);

  void prepare(const ExecSpace& exec, Operations& operations);

  /// Overwrites y.
  void forward(const Context& context, const AnyIn& x, Saved& saved, const AnyView& y) const;
  /// Overwrites dx, which may be dy; adds to the parameters' gradients. Once for each forward: the
  /// gradients of gate and up take the place of what was saved.
  void backward(const Context& context, const Saved& saved, const AnyIn& dy,
                const AnyView& dx) const;

  template <typename Visitor> void visit_parameters(Visitor&& visit) {
    for (Linear* projection : {&gate_, &up_, &down_}) projection->visit_parameters(visit);
  }

 private:
  MlpConfig config_;
  TensorParallel tp_;
  Linear gate_, up_, down_;
};

}  // namespace konclave
