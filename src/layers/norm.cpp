#include "layers/norm.hpp"

#include "ops/rms_norm.hpp"

namespace konclave {

RmsNorm::RmsNorm(const std::string& name, int hidden, double eps, DType type, Region region,
                 const TensorParallel& tp, const ParameterStorage& storage)
    : weight_({name + ".weight", {hidden}, accum_type(type), 0, 1},
              region == Region::outside ? Placement::outside({hidden}, tp)
                                        : Placement::inside({hidden}, tp),
              storage),
      eps_(eps) {}

void RmsNorm::forward(const Context& context, const AnyIn& x, Saved& saved,
                      const AnyView& y) const {
  saved = {x, context.activations.make(accum_type(x.type()), x.extent(0))};
  ops::rms_norm_forward(context.exec, x, weight_.value(), eps_, saved.r, y);
}

void RmsNorm::forward_sum(const Context& context, const AnyIn& x, const AnyIn& addend, Saved& saved,
                          const AnyView& sum, const AnyView& y) const {
  saved = {sum, context.activations.make(accum_type(x.type()), x.extent(0))};
  ops::add_rms_norm_forward(context.exec, x, addend, weight_.value(), eps_, sum, saved.r, y);
}

void RmsNorm::again(const Context& context, const Saved& saved, const AnyView& y) const {
  ops::rms_norm_again(context.exec, saved.x, weight_.value(), saved.r, y);
}

void RmsNorm::backward(const Context& context, const Saved& saved, const AnyIn& dy,
                       const AnyIn& residual, const AnyView& dx) const {
  const ArenaScope scope(context.scratch);
  const AnyView scratch = context.scratch.make(
      saved.r.type(), ops::rms_norm_scratch(saved.x.extent(0), saved.x.extent(1)));
  ops::rms_norm_backward(context.exec, saved.x, weight_.value(), saved.r, dy, residual, scratch,
                         weight_.grad_to_add_to(context.exec), dx);
}

}  // namespace konclave
