#include "layers/linear.hpp"

#include "ops/elementwise.hpp"

namespace konclave {

namespace {

Placement placement(const std::vector<std::int64_t>& shape, Split split, const TensorParallel& tp) {
  if (split == Split::none) return Placement::inside(shape, tp);
  return Placement::part(shape, split == Split::outputs ? 0 : 1, tp);
}

Parameter make(const ParameterSpec& spec, Split split, const TensorParallel& tp,
               const ParameterStorage& storage) {
  return {spec, placement(spec.shape, split, tp), storage};
}

}  // namespace

Linear::Linear(const std::string& name, const LinearConfig& config, const TensorParallel& tp,
               const ParameterStorage& storage)
    : weight_(make({.name = name + ".weight",
                    .shape = {config.out, config.in},
                    .type = config.type,
                    .init_std = config.init_std,
                    .only_multiplied = true},
                   config.split, tp, storage)) {
  if (!config.bias) return;
  require(config.split != Split::inputs, name + ": every rank of tp would add the bias");
  bias_.emplace(make({name + ".bias", {config.out}, config.type}, config.split, tp, storage));
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
  context.operations.gemm(context.exec, weight_.next_gradient_shape(),
                          {dy, nullptr, x, weight_.grad(), {}});
  if (bias_) ops::accumulate_rows(context.exec, dy, bias_->grad_to_add_to(context.exec));
}

}  // namespace konclave
