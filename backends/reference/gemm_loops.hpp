#pragma once

#include "ops/gemm.hpp"

#include <cstdint>

namespace konclave::reference {

/// The three products of a linear layer for `rows` rows, in host memory. X is the type of x, dy
/// and W, R that of the result; sums are taken in Accum<X>.
template <typename X, typename R> struct GemmLoops {
  const GemmShape& shape;

  /// y[t,o] = sum over i of x[t,i] W[o,i]
  void forward(std::int64_t rows, const X* x, const X* w, R* y) const {
    const std::int64_t out = shape.out, in = shape.in;
    for (std::int64_t t = 0; t < rows; ++t) {
      for (std::int64_t o = 0; o < out; ++o) {
        Sum sum = 0;
        for (std::int64_t i = 0; i < in; ++i) sum += Sum(x[t * in + i]) * Sum(w[o * in + i]);
        put(sum, y[t * out + o]);
      }
    }
  }

  /// dx[t,i] = sum over o of dy[t,o] W[o,i]
  void data_gradient(std::int64_t rows, const X* dy, const X* w, R* dx) const {
    const std::int64_t out = shape.out, in = shape.in;
    for (std::int64_t t = 0; t < rows; ++t) {
      for (std::int64_t i = 0; i < in; ++i) {
        Sum sum = 0;
        for (std::int64_t o = 0; o < out; ++o) sum += Sum(dy[t * out + o]) * Sum(w[o * in + i]);
        put(sum, dx[t * in + i]);
      }
    }
  }

  /// dW[o,i] = sum over t of dy[t,o] x[t,i]
  void weight_gradient(std::int64_t rows, const X* dy, const X* x, R* dw) const {
    const std::int64_t out = shape.out, in = shape.in;
    for (std::int64_t o = 0; o < out; ++o) {
      for (std::int64_t i = 0; i < in; ++i) {
        Sum sum = 0;
        for (std::int64_t t = 0; t < rows; ++t) sum += Sum(dy[t * out + o]) * Sum(x[t * in + i]);
        put(sum, dw[o * in + i]);
      }
    }
  }

  /// The product of this shape's kind; `b` is W, or x for the weight gradient.
  void run(std::int64_t rows, const X* a, const X* b, R* c) const {
    switch (shape.kind) {
      case GemmKind::forward:
        return forward(rows, a, b, c);
      case GemmKind::data_gradient:
        return data_gradient(rows, a, b, c);
      case GemmKind::weight_gradient:
        return weight_gradient(rows, a, b, c);
    }
  }

 private:
  using Sum = Accum<X>;

  void put(Sum sum, R& result) const {
    using Wide = Accum<R>;
    result = R(shape.accumulate ? Wide(result) + static_cast<Wide>(sum) : static_cast<Wide>(sum));
  }
};

/// Calls run(TypeTag<X>, TypeTag<R>) for the type of the operands and that of the result.
template <typename Run> void dispatch_types(const GemmShape& shape, Run&& run) {
  dispatch(shape.type,
           [&](auto type) { dispatch(shape.result, [&](auto result) { run(type, result); }); });
}

}  // namespace konclave::reference
