#include "layers/mlp.hpp"

#include "ops/swiglu.hpp"
#include "parallel/entering.hpp"
#include "parallel/leaving.hpp"

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
  const std::int64_t tokens = tp_.rows_inside(x.extent(0)), ffn = gate_.outputs();
  saved = {x, context.activations.make(config_.type, tokens, ffn),
           context.activations.make(config_.type, tokens, ffn)};
  Entering entering(context.exec, context.operations, context.scratch, tp_, x);
  entering.each([&](const RowBlock& rows, const AnyIn& inside) {
    gate_.forward(context, inside, saved.gate.slice(rows.first, rows.rows));
    up_.forward(context, inside, saved.up.slice(rows.first, rows.rows));
  });
  const AnyView hidden = context.scratch.make(config_.type, tokens, ffn);
  ops::swiglu_forward(context.exec, saved.gate, saved.up, {}, hidden);
  Leaving leaving(context.exec, context.operations, context.scratch, tp_, y);
  leaving.each([&](const RowBlock& rows, const AnyView& partial) {
    down_.forward(context, hidden.slice(rows.first, rows.rows), partial);
  });
  leaving.finish();
}

void Mlp::backward(const Context& context, const Saved& saved, const AnyIn& dy,
                   const AnyView& dx) const {
  const ArenaScope scope(context.scratch);
  // Rows that are on their way need memory: with overlap those of x from here on.
  Entering entering_dy(context.exec, context.operations, context.scratch, tp_, dy);
  Entering entering_x(context.exec, context.operations, context.scratch, tp_, saved.x);
  const AnyView hidden =
      context.scratch.make(config_.type, saved.gate.extent(0), saved.gate.extent(1));
  entering_dy.each([&](const RowBlock& rows, const AnyIn& inside) {
    down_.data_gradient(context, inside, /*add=*/false, hidden.slice(rows.first, rows.rows));
  });
  const AnyView d_gate = saved.gate, d_up = saved.up;
  ops::swiglu_backward(context.exec, saved.gate, saved.up, {}, hidden, hidden, d_gate, d_up, {});
  down_.weight_gradient(context, hidden, entering_dy.all());  // before dx, which may be dy
  Leaving leaving(context.exec, context.operations, context.scratch, tp_, dx);
  leaving.each([&](const RowBlock& rows, const AnyView& partial) {
    gate_.data_gradient(context, d_gate.slice(rows.first, rows.rows), /*add=*/false, partial);
    up_.data_gradient(context, d_up.slice(rows.first, rows.rows), /*add=*/true, partial);
  });
  const AnyIn inside = entering_x.all();
  gate_.weight_gradient(context, inside, d_gate);
  up_.weight_gradient(context, inside, d_up);
  leaving.finish();
}

}  // namespace konclave
