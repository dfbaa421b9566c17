#pragma once

#include "tensor/view.hpp"

namespace konclave::ops {

/// Cross entropy of logits z that come in parts of the vocabulary, block by block or from other
/// ranks. A row's statistics are three numbers in the accumulation type, of a part or of the whole:
///
///   largest = max over v of z[t,v]   sum = sum over v of exp(z[t,v] - largest)   target =
///   z[t,label[t]]
///
/// where target is 0 for a part that does not have the label. `first` is the number of the part's
/// first logit in the whole; labels are numbers in the whole, and below 0 where a row is not
/// scored. A NaN logit makes `sum` NaN. Shapes  z, terms, dz (T,V) of the part   labels, loss (T)
///         statistics, whole (T,3)   parts (P T,3): those of all parts, the first one's first.
/// All run on `exec`; none allocates or fences. T may be 0.
void cross_entropy_statistics(const ExecSpace& exec, const AnyIn& z, const View1<const int>& labels,
                              std::int64_t first, const AnyView& statistics);

/// The same, and the terms of the sum, exp(z[t,v] - largest), for the gradient: rounded to the
/// compute type their relative error is that of the gradient, and those of logits would not be.
/// They may be where z is, if the types are equal.
void cross_entropy_terms(const ExecSpace& exec, const AnyIn& z, const View1<const int>& labels,
                         std::int64_t first, const AnyView& statistics, const AnyView& terms);

/// Statistics of the whole: largest = max over p of largest_p, sum = sum over p of
/// sum_p exp(largest_p - largest), in the order of parts, target = the one of the part that has it.
/// And  loss[t] = log(sum) + largest - target  in nats, 0 where label[t] < 0.
void merge_cross_entropy(const ExecSpace& exec, const AnyIn& parts, const View1<const int>& labels,
                         const AnyView& whole, const View1<double>& loss);

/// dz[t,v] = scale (softmax(z)[t,v] - [first + v == label[t]]), 0 where label[t] < 0, from the
/// terms and statistics of the part and the statistics of the whole. dz may be the terms.
void cross_entropy_gradient(const ExecSpace& exec, const AnyIn& terms, const AnyIn& statistics,
                            const AnyIn& whole, const View1<const int>& labels, std::int64_t first,
                            double scale, const AnyView& dz);

}  // namespace konclave::ops
