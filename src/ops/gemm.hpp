#pragma once

#include "tensor/view.hpp"

#include <compare>
#include <memory>
#include <string>
#include <string_view>

namespace konclave {

/// The three products of a linear layer y = x W^T with W (Out,In), x (T,In), y (T,Out).
enum class GemmKind : std::uint8_t {
  forward,         ///< y  (T,Out)  = x  W^T
  data_gradient,   ///< dx (T,In)   = dy W
  weight_gradient  ///< dW (Out,In) = dy^T x
};
std::string_view name_of(GemmKind kind);

/// What a backend must know to accept or refuse a product; the number of rows T is left open.
struct GemmShape {
  GemmKind kind = GemmKind::forward;
  int out = 0, in = 0;
  DType type = DType::fp32;    ///< of x, dy and W
  DType result = DType::fp32;  ///< of the output
  bool accumulate = false;     ///< adds to the output instead of overwriting it

  auto operator<=>(const GemmShape&) const = default;
};
std::string describe(const GemmShape& shape);

/// A weight in the form that a backend wants it in for one kind of product. Belongs to the
/// parameter; the optimizer's update makes it stale (Parameter::prepare makes it anew).
struct PreparedWeight {
  AnyIn weight;                      ///< as stored, (Out,In) or (L,Out,In)
  std::shared_ptr<const void> form;  ///< the backend's own packing; null when it uses `weight`
};

struct GemmOperands {
  AnyIn a;                                 ///< forward: x; both gradients: dy
  const PreparedWeight* weight = nullptr;  ///< forward and data_gradient
  AnyIn b;                                 ///< weight_gradient: x
  AnyView c;                               ///< the output
  AnyView workspace;                       ///< at least `workspace` bytes, as fp32 elements
};

/// A backend's offer for a product. Refusals are sentences that say what it cannot do; "" accepts.
struct GemmOffer {
  std::string_view backend;
  std::string (*refuses)(const GemmShape& shape);
  /// Bytes of scratch memory for `rows` rows.
  std::size_t (*workspace)(const GemmShape& shape, std::int64_t rows);
  PreparedWeight (*prepare)(const ExecSpace& exec, const GemmShape& shape, const AnyIn& weight);
  /// Asynchronous on `exec`; T may be 0 (then forward and data_gradient do nothing, and
  /// weight_gradient writes zeros unless it accumulates).
  void (*run)(const ExecSpace& exec, const GemmShape& shape, const GemmOperands& operands);
  /// What a user should know of how an accepted problem is run; "" when it is run as it is.
  std::string (*remark)(const GemmShape& shape) = nullptr;
};

}  // namespace konclave
