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

/// The same for ranks that have a part of the vocabulary each, in three steps around one exchange.
/// A row's statistics are three numbers in the accumulation type, of a part or of the whole:
///
///   largest = max over v of z[t,v]   sum = sum over v of exp(z[t,v] - largest)   target =
///   z[t,label[t]]
///
/// where target is 0 for a part that does not have the label. `first` is the number of the part's
/// first logit in the whole; labels are numbers in the whole. A NaN logit makes `sum` NaN. Shapes
/// z (T,V) of the part   labels, loss (T)   statistics, whole (T,3)   parts (R T,3): those of
///         all ranks, rank 0 first.
/// All run on `exec`; none allocates or fences. T may be 0.
void cross_entropy_statistics(const ExecSpace& exec, const AnyIn& z, const View1<const int>& labels,
                              std::int64_t first, const AnyView& statistics);

/// Statistics of the whole: largest = max over r of largest_r, sum = sum over r of
/// sum_r exp(largest_r - largest), in the order of ranks, target = the one of the part that has it.
/// And  loss[t] = log(sum) + largest - target, 0 where label[t] < 0: the same bits on every rank.
void merge_cross_entropy(const ExecSpace& exec, const AnyIn& parts, const View1<const int>& labels,
                         const AnyView& whole, const View1<double>& loss);

/// dz[t,v] = scale (exp(z[t,v] - largest) / sum - [first + v == label[t]]) by the statistics of the
/// whole, 0 where label[t] < 0. Types, and whether dz may be z, as in cross_entropy_gradient.
void cross_entropy_part_gradient(const ExecSpace& exec, const AnyIn& z, const AnyIn& whole,
                                 const View1<const int>& labels, std::int64_t first, double scale,
                                 const AnyView& dz);

}  // namespace konclave::ops
