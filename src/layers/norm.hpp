#pragma once

#include "layers/context.hpp"
#include "layers/parameter.hpp"

#include <string>

namespace konclave {

/// RMSNorm over rows of H (ops/rms_norm.hpp). Its weight is kept in the accumulation type.
class RmsNorm {
 public:
  struct Saved {
    AnyIn x;
    AnyView r;
  };

  enum class Region { outside, inside };

  /// `region`: of tensor parallelism, where its rows are.
  RmsNorm(const std::string& name, int hidden, double eps, DType type, Region region,
          const TensorParallel& tp, const ParameterStorage& storage);

  /// Overwrites y, which must not be x: backward reads x. Shapes x, y (T,H).
  void forward(const Context& context, const AnyIn& x, Saved& saved, const AnyView& y) const;
  /// sum = x + addend and y = the norm of `sum`, which backward reads. sum may be x or addend.
  void forward_sum(const Context& context, const AnyIn& x, const AnyIn& addend, Saved& saved,
                   const AnyView& sum, const AnyView& y) const;
  /// y as forward has left it, to the same bits, of what it has kept. Overwrites y.
  void again(const Context& context, const Saved& saved, const AnyView& y) const;
  /// dx = residual + J^T dy; an empty residual stands for zero. dx may be dy or residual.
  void backward(const Context& context, const Saved& saved, const AnyIn& dy, const AnyIn& residual,
                const AnyView& dx) const;

  template <typename Visitor> void visit_parameters(Visitor&& visit) { visit(weight_); }

 private:
  Parameter weight_;
  double eps_;
};

}  // namespace konclave
