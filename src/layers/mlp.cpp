#include "layers/mlp.hpp"

#include "ops/swiglu.hpp"

namespace konclave {

Mlp::Mlp(const std::string& name, const MlpConfig& config, const ParameterStorage& storage)
    : config_(config),
      gate_(name + ".gate_proj", {config.hidden, config.ffn, config.type, false, config.init_std},
            storage),
      up_(name + ".up_proj", {config.hidden, config.ffn, config.type, false, config.init_std},
          storage),
      down_(name + ".down_proj",
            {config.ffn, config.hidden, config.type, false, config.output_init_std}, storage) {}

void Mlp::prepare(const ExecSpace& exec, Operations& operations) {
  for (Linear* projection : {&gate_, &up_, &down_}) projection->prepare(exec, operations);
}

void Mlp::forward(const Context& context, const AnyIn& x, Saved& saved, const AnyView& y) const {
  const ArenaScope scope(context.scratch);
  const std::int64_t tokens = x.extent(0);
  saved = {x, context.activations.make(config_.type, tokens, config_.ffn),
           context.activations.make(config_.type, tokens, config_.ffn)};
  gate_.forward(context, x, saved.gate);
  up_.forward(context, x, saved.up);
  const AnyView hidden = context.scratch.make(config_.type, tokens, config_.ffn);
  ops::swiglu_forward(context.exec, saved.gate, saved.up, {}, hidden);
  down_.forward(context, hidden, y);
}

void Mlp::backward(const Context& context, const Saved& saved, const AnyIn& dy,
                   const AnyView& dx) const {
  const ArenaScope scope(context.scratch);
  const std::int64_t tokens = dy.extent(0);
  const auto scratch = [&] { return context.scratch.make(config_.type, tokens, config_.ffn); };
  const AnyView d_hidden = scratch(), hidden = scratch(), d_gate = scratch(), d_up = scratch();
  down_.data_gradient(context, dy, /*add=*/false, d_hidden);
  ops::swiglu_backward(context.exec, saved.gate, saved.up, {}, d_hidden, hidden, d_gate, d_up, {});
  down_.weight_gradient(context, hidden, dy);
  gate_.weight_gradient(context, saved.x, d_gate);
  up_.weight_gradient(context, saved.x, d_up);
  gate_.data_gradient(context, d_gate, /*add=*/false, dx);
  up_.data_gradient(context, d_up, /*add=*/true, dx);
}

}  // namespace konclave
