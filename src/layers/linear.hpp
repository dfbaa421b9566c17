#pragma once

#include "layers/context.hpp"
#include "layers/parameter.hpp"

#include <optional>
#include <string>

namespace konclave {

struct LinearConfig {
  int in = 0, out = 0;
  DType type = DType::fp32;
  bool bias = false;
  double init_std = 0.02;
};

/// y = x W^T + b.   Shapes  x (T,In)   W (Out,In)   b (Out)   y (T,Out).
class Linear {
 public:
  /// Parameters NAME.weight and, with a bias, NAME.bias.
  Linear(const std::string& name, const LinearConfig& config, const ParameterStorage& storage);

  void prepare(const ExecSpace& exec, Operations& operations);

  /// Overwrites y.
  void forward(const Context& context, const AnyIn& x, const AnyView& y) const;
  /// dx = dy W, or dx += dy W when `add`.
  void data_gradient(const Context& context, const AnyIn& dy, bool add, const AnyView& dx) const;
  /// Adds dy^T x to the gradient of W and the column sums of dy to that of b.
  void weight_gradient(const Context& context, const AnyIn& x, const AnyIn& dy) const;

  template <typename Visitor> void visit_parameters(Visitor&& visit) {
    visit(weight_);
    if (bias_) visit(*bias_);
  }

 private:
  Parameter weight_;
  std::optional<Parameter> bias_;
};

}  // namespace konclave
