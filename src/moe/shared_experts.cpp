#include "moe/shared_experts.hpp"

#include "ops/elementwise.hpp"
#include "ops/row_gate.hpp"

namespace konclave {

namespace {

/// (1,H) as (H).
AnyView row_of(const AnyView& matrix) {
  return {matrix.type(), matrix.data(), {matrix.extent(1), 1, 1}, 1};
}

}  // namespace

SharedExperts::SharedExperts(const std::string& name, const MlpConfig& config, bool gated,
                             const Groups& groups, const ParameterStorage& storage)
    : mlp_(name, config, TensorParallel(groups), storage) {
  if (!gated) return;
  ParameterSpec spec{
      name + ".gate.weight", {1, config.hidden}, accum_type(config.type), config.init_std};
  gate_.emplace(spec, Placement::outside(spec.shape, TensorParallel(groups)), storage);
}

void SharedExperts::prepare(const ExecSpace& exec, Operations& operations) {
  mlp_.prepare(exec, operations);
}

void SharedExperts::forward(const Context& context, const AnyIn& x, Saved& saved,
                            const AnyView& y) const {
  const ArenaScope scope(context.scratch);
  Arena& memory = gate_ ? context.activations : context.scratch;
  start(context, x, memory.make(x.type(), x.extent(0), x.extent(1)), saved);
  add(context, saved, y);
}

void SharedExperts::start(const Context& context, const AnyIn& x, const AnyView& output,
                          Saved& saved) const {
  mlp_.forward(context, x, saved.mlp, output);
  saved.x = x;
  saved.output = output;
}

void SharedExperts::add(const Context& context, Saved& saved, const AnyView& y) const {
  if (!gate_) {
    ops::add(context.exec, y, saved.output, y);
    return;
  }
  saved.gate = context.activations.make(accum_type(saved.x.type()), saved.x.extent(0));
  ops::row_gate_forward(context.exec, saved.x, row_of(gate_->value()), saved.output, saved.gate, y);
}

void SharedExperts::backward(const Context& context, const Saved& saved, const AnyIn& dy,
                             const AnyView& dx) const {
  if (!gate_) {
    mlp_.backward(context, saved.mlp, dy, dx);
    return;
  }
  const ArenaScope scope(context.scratch);
  const AnyView d_output = saved.output;  // its values are not needed again
  const AnyView d_product = context.scratch.make(saved.gate.type(), saved.gate.extent(0));
  ops::row_gate_backward(context.exec, dy, saved.output, saved.gate, d_output, d_product);
  mlp_.backward(context, saved.mlp, d_output, dx);
  ops::row_product_backward(context.exec, d_product, saved.x, row_of(gate_->value()),
                            row_of(gate_->grad_to_add_to(context.exec)), dx);
}

}  // namespace konclave
