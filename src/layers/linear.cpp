#include "layers/linear.hpp"

#include "ops/elementwise.hpp"

namespace konclave {

Linear::Linear(const std::string& name, const LinearConfig& config, const ParameterStorage& storage)
    : weight_({name + ".weight", {config.out, config.in}, config.type, config.init_std}, storage) {
  if (config.bias) {
    bias_.emplace(ParameterSpec{name + ".bias", {config.out}, config.type}, storage);
  }
}

void Linear::prepare(const ExecSpace& exec, Operations& operations) {
  weight_.prepare(exec, operations, 0);
}

void Linear::forward(const Context& context, const AnyIn& x, const AnyView& y) const {
  context.operations.gemm(context.exec, weight_.gemm_shape(GemmKind::forward),
                          {x, &weight_.prepared(GemmKind::forward), {}, y, {}});
  if (bias_) ops::add_bias(context.exec, bias_->value(), y);
}

void Linear::data_gradient(const Context& context, const AnyIn& dy, bool add,
                           const AnyView& dx) const {
  GemmShape shape = weight_.gemm_shape(GemmKind::data_gradient);
  shape.accumulate = add;
  context.operations.gemm(context.exec, shape,
                          {dy, &weight_.prepared(GemmKind::data_gradient), {}, dx, {}});
}

void Linear::weight_gradient(const Context& context, const AnyIn& x, const AnyIn& dy) const {
  context.operations.gemm(context.exec, weight_.gemm_shape(GemmKind::weight_gradient),
                          {dy, nullptr, x, weight_.grad(), {}});
  if (bias_) ops::accumulate_rows(context.exec, dy, bias_->grad());
}

}  // namespace konclave
