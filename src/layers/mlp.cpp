#include "layers/mlp.hpp"

#include "ops/swiglu.hpp"

namespace konclave {

namespace {

LinearConfig inward(const MlpConfig& config) {
  return {config.hidden, config.ffn, config.type, false, config.init_std, Split::outputs};
}

LinearConfig outward(const MlpConfig& config) {
  return {config.ffn, config.hidden, config.type, false, config.output_init_std, Split::inputs};
}

}  // namespace

Mlp::Mlp(const std::string& name, const MlpConfig& config, const TensorParallel& tp,
         const ParameterStorage& storage)
    : config_(config),
      tp_(tp),
      gate_(name + ".gate_proj", inward(config), tp, storage),
      up_(name + ".up_proj", inward(config), tp, storage),
      down_(name + ".down_proj", outward(config), tp, storage) {}

void Mlp::prepare(const ExecSpace& exec, Operations& operations) {
  for (Linear* projection : {&gate_, &up_, &down_}) projection->prepare(exec, operations);
}

void Mlp::forward(const Context& context, const AnyIn& x, Saved& saved, const AnyView& y) const {
  const ArenaScope scope(context.scratch);
  const AnyIn inside = tp_.enter(context.exec, context.scratch, x);
  const std::int64_t tokens = inside.extent(0), ffn = gate_.outputs();
  saved = {x, context.activations.make(config_.type, tokens, ffn),
           context.activations.make(config_.type, tokens, ffn)};
  gate_.forward(context, inside, saved.gate);
  up_.forward(context, inside, saved.up);
  const AnyView hidden = context.scratch.make(config_.type, tokens, ffn);
  ops::swiglu_forward(context.exec, saved.gate, saved.up, {}, hidden);
  const AnyView partial = tp_.partial(context.scratch, y);
  down_.forward(context, hidden, partial);
  tp_.leave(context.exec, context.scratch, partial, y);
}

void Mlp::backward(const Context& context, const Saved& saved, const AnyIn& dy,
                   const AnyView& dx) const {
  const ArenaScope scope(context.scratch);
  const AnyIn dy_inside = tp_.enter(context.exec, context.scratch, dy);
  const AnyView hidden =
      context.scratch.make(config_.type, saved.gate.extent(0), saved.gate.extent(1));
  down_.data_gradient(context, dy_inside, /*add=*/false, hidden);
  const AnyView d_gate = saved.gate, d_up = saved.up;
  ops::swiglu_backward(context.exec, saved.gate, saved.up, {}, hidden, hidden, d_gate, d_up, {});
  down_.weight_gradient(context, hidden, dy_inside);
  const AnyIn inside = tp_.enter(context.exec, context.scratch, saved.x);
  gate_.weight_gradient(context, inside, d_gate);
  up_.weight_gradient(context, inside, d_up);
  const AnyView partial = tp_.partial(context.scratch, dx);
  gate_.data_gradient(context, d_gate, /*add=*/false, partial);
  up_.data_gradient(context, d_up, /*add=*/true, partial);
  tp_.leave(context.exec, context.scratch, partial, dx);
}

}  // namespace konclave
