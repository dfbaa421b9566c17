#pragma once

#include "tensor/view.hpp"

namespace konclave::ops {

/// loss[t] = log(sum over v of exp(z[t,v])) - z[t,label[t]], in nats; 0 where label[t] < 0.
///
/// Shapes  z (T,V) in the accumulation type   labels (T)   loss (T), double.
/// Runs on `exec`; neither allocates nor fences. T may be 0.
void cross_entropy(const ExecSpace& exec, const AnyIn& z, const View1<const int>& labels,
                   const View1<double>& loss);

/// The same, and dz[t,v] = scale (softmax(z)[t,v] - [v == label[t]]), 0 where label[t] < 0. dz
/// may have the compute type of z's accumulation type; it may be z where the types are equal.
void cross_entropy_gradient(const ExecSpace& exec, const AnyIn& z, const View1<const int>& labels,
                            double scale, const View1<double>& loss, const AnyView& dz);

}  // namespace konclave::ops
