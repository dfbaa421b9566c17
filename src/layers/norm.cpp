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

void RmsNorm::backward(const Context& context, const Saved& saved, const AnyIn& dy,
                       const AnyIn& residual, const AnyView& dx) const {
  ops::rms_norm_backward(context.exec, saved.x, weight_.value(), saved.r, dy, residual,
                         weight_.grad(), dx);
}

}  // namespace konclave
