#include "moe/experts.hpp"

#include "base/fault.hpp"
#include "ops/swiglu.hpp"

#include <vector>

namespace konclave {

namespace {

/// Axes of (E,out,in).
constexpr std::size_t kExperts = 0, kOut = 1, kIn = 2;

/// The part of the experts that ranks of ep share, and of their axis `sliced` those of etp.
Shard expert_part(const std::vector<std::int64_t>& shape, const Groups& groups,
                  std::size_t sliced) {
  const Transport &ep = *groups.ep, &etp = *groups.etp;
  const int part = fault("experts.wrong_part") ? ep.size() - 1 - ep.rank() : ep.rank();
  const bool reversed = sliced == kIn && fault("etp.wrong_slice");
  const int slice = reversed ? etp.size() - 1 - etp.rank() : etp.rank();
  Shard shard = Shard::part(shape, kExperts, part, ep.size());
  const Shard of_axis = Shard::part(shape, sliced, slice, etp.size());
  shard.offset[sliced] = of_axis.offset[sliced];
  shard.extent[sliced] = of_axis.extent[sliced];
  return shard;
}

/// The matrices NAME.weight (E,out,in) of all experts, of which this rank holds its part.
Parameter expert_matrix(const std::string& name, const ExpertsConfig& config, int out, int in,
                        double init_std, const Groups& groups, std::size_t sliced,
                        const ParameterStorage& storage) {
  const ParameterSpec spec{.name = name + ".weight",
                           .shape = {config.experts, out, in},
                           .type = config.type,
                           .init_std = init_std,
                           .routed = true,
                           .only_multiplied = true};
  return {spec, Placement{.shard = expert_part(spec.shape, groups, sliced)}, storage};
}

}  // namespace

Experts::Experts(const std::string& name, const ExpertsConfig& config, const Groups& groups,
                 const ParameterStorage& storage)
    : type_(config.type),
      gate_(expert_matrix(name + ".gate_proj", config, config.ffn, config.hidden, config.init_std,
                          groups, kOut, storage)),
      up_(expert_matrix(name + ".up_proj", config, config.ffn, config.hidden, config.init_std,
                        groups, kOut, storage)),
      down_(expert_matrix(name + ".down_proj", config, config.hidden, config.ffn,
                          config.output_init_std, groups, kIn, storage)) {}

void Experts::prepare(const ExecSpace& exec, Operations& operations) {
  for (Parameter* weight : {&gate_, &up_, &down_}) {
    weight->prepare(exec, operations, local());
  }
}

void Experts::forward_product(const Context& context, const Parameter& weight,
                              const View1<const int>& offsets, const AnyIn& x,
                              const AnyView& y) const {
  context.operations.grouped_gemm(context.exec, {local(), weight.gemm_shape(GemmKind::forward)},
                                  {offsets, x, &weight.prepared(GemmKind::forward), {}, y, {}});
}

void Experts::data_gradient(const Context& context, const Parameter& weight,
                            const View1<const int>& offsets, const AnyIn& dy, bool add,
                            const AnyView& dx) const {
  GemmShape shape = weight.gemm_shape(GemmKind::data_gradient);
  shape.accumulate = add;
  context.operations.grouped_gemm(
      context.exec, {local(), shape},
      {offsets, dy, &weight.prepared(GemmKind::data_gradient), {}, dx, {}});
}

void Experts::weight_gradient(const Context& context, const Parameter& weight,
                              const View1<const int>& offsets, const AnyIn& x,
                              const AnyIn& dy) const {
  context.operations.grouped_gemm(context.exec, {local(), weight.next_gradient_shape()},
                                  {offsets, dy, nullptr, x, weight.grad(), {}});
}

void Experts::start(const Context& context, const View1<const int>& offsets, const AnyIn& x,
                    const AnyIn& weights, Saved& saved) const {
  const std::int64_t rows = x.extent(0);
  saved = {x, weights, offsets, context.activations.make(type_, rows, ffn()),
           context.activations.make(type_, rows, ffn())};
  forward_product(context, gate_, offsets, x, saved.gate);
  forward_product(context, up_, offsets, x, saved.up);
}

void Experts::forward(const Context& context, const View1<const int>& offsets, const AnyIn& x,
                      const AnyIn& weights, Saved& saved, const AnyView& y) const {
  start(context, offsets, x, weights, saved);
  const ArenaScope scope(context.scratch);
  const AnyView hidden = context.scratch.make(type_, x.extent(0), ffn());
  ops::swiglu_forward(context.exec, saved.gate, saved.up, weights, hidden);
  forward_product(context, down_, offsets, hidden, y);
}

void Experts::backward(const Context& context, const Saved& saved, const AnyIn& dy,
                       const AnyView& dweights, const AnyView& dx) const {
  const ArenaScope scope(context.scratch);
  const AnyView hidden = context.scratch.make(type_, dy.extent(0), ffn());
  const AnyView d_gate = saved.gate, d_up = saved.up;
  data_gradient(context, down_, saved.offsets, dy, /*add=*/false, hidden);
  ops::swiglu_backward(context.exec, saved.gate, saved.up, saved.weights, hidden, hidden, d_gate,
                       d_up, dweights);
  weight_gradient(context, down_, saved.offsets, hidden, dy);
  data_gradient(context, gate_, saved.offsets, d_gate, /*add=*/false, dx);
  data_gradient(context, up_, saved.offsets, d_up, /*add=*/true, dx);
}

void Experts::finish_backward(const Context& context, const Saved& saved) const {
  weight_gradient(context, gate_, saved.offsets, saved.x, saved.gate);
  weight_gradient(context, up_, saved.offsets, saved.x, saved.up);
}

}  // namespace konclave
