#pragma once

#include "layers/context.hpp"
#include "layers/parameter.hpp"

#include <optional>
#include <string>

namespace konclave {

/// What of a matrix each rank of tp has: a part of its outputs (Megatron's column parallel), a part
/// of its inputs (row parallel), or all of it.
enum class Split { outputs, inputs, none };

struct LinearConfig {
  int in = 0, out = 0;  ///< of the whole model
  DType type = DType::fp32;
  bool bias = false;  ///< not with Split::inputs: it would be added by every rank
  double init_std = 0.02;
  Split split = Split::none;
};

/// y = x W^T + b on the rows of the region inside (TensorParallel), with this rank's part of W:
/// what it makes is a part of the outputs, or with Split::inputs its share of a sum over tp, and dx
/// is such a share with Split::outputs and Split::none. Going in and out is the caller's matter.
/// Shapes  x (T,In)   W (Out,In)   b (Out)   y (T,Out), with the sizes of the part.
class Linear {
 public:
  /// Parameters NAME.weight and, with a bias, NAME.bias.
  Linear(const std::string& name, const LinearConfig& config, const TensorParallel& tp,
         const ParameterStorage& storage);

  /// On this rank.
  std::int64_t outputs() const { return weight_.shard().extent[0]; }

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
