#pragma once

#include "tensor/view.hpp"

/// Elementwise operations on views of any rank and type. All run on `exec`; none allocates or
/// fences.
namespace konclave::ops {

/// y = a + b, rounded once. Same shapes and types; y may be a or b.
void add(const ExecSpace& exec, const AnyIn& a, const AnyIn& b, const AnyView& y);

/// y = x in y's type.
void cast(const ExecSpace& exec, const AnyIn& x, const AnyView& y);

/// y = 0.
void fill_zero(const ExecSpace& exec, const AnyView& y);

/// y[t,h] += b[h].   Shapes y (T,H), b (H) of the same type.
void add_bias(const ExecSpace& exec, const AnyIn& b, const AnyView& y);

/// db[h] += sum over t of dy[t,h].   Shapes dy (T,H), db (H) in the accumulation type.
void bias_gradient(const ExecSpace& exec, const AnyIn& dy, const AnyView& db);

}  // namespace konclave::ops
