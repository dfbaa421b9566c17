#include "ops/elementwise.hpp"
#include "ops/rms_norm.hpp"
#include "tests/unit/kernels/kernel_test.hpp"

#include <cmath>

namespace konclave {
namespace {

constexpr double kEps = 1e-5;

struct Normed {
  Matrix r, y;
};

Normed plain_forward(const Matrix& x, const Matrix& w) {
  Normed result{{x.rows, 1, std::vector<double>(static_cast<std::size_t>(x.rows))}, x};
  for (std::int64_t t = 0; t < x.rows; ++t) {
    double squares = 0;
    for (std::int64_t h = 0; h < x.columns; ++h) squares += x(t, h) * x(t, h);
    result.r(t, 0) = 1 / std::sqrt(squares / static_cast<double>(x.columns) + kEps);
    for (std::int64_t h = 0; h < x.columns; ++h) result.y(t, h) *= result.r(t, 0) * w(h, 0);
  }
  return result;
}

struct Gradients {
  Matrix dx, dw;
};

/// `into` holds what dx and dw are added to.
Gradients plain_backward(const Matrix& x, const Matrix& w, const Matrix& dy, Gradients into) {
  const Matrix r = plain_forward(x, w).r;
  for (std::int64_t t = 0; t < x.rows; ++t) {
    double mean = 0;
    for (std::int64_t h = 0; h < x.columns; ++h) mean += dy(t, h) * w(h, 0) * x(t, h);
    mean /= static_cast<double>(x.columns);
    const double scale = r(t, 0);
    for (std::int64_t h = 0; h < x.columns; ++h) {
      into.dx(t, h) += scale * dy(t, h) * w(h, 0) - scale * scale * scale * mean * x(t, h);
      into.dw(h, 0) += dy(t, h) * x(t, h) * scale;
    }
  }
  return into;
}

class RmsNorm : public KernelTest {
 protected:
  void backward(const AnyIn& x, const AnyIn& w, const AnyIn& r, const AnyIn& dy,
                const AnyIn& residual, const AnyView& dw, const AnyView& dx) {
    const AnyView scratch =
        tensors_.poisoned(w.type(), ops::rms_norm_scratch(x.extent(0), x.extent(1)));
    ops::rms_norm_backward(exec_, x, w, r, dy, residual, scratch, dw, dx);
  }
};

TEST_F(RmsNorm, ForwardAgreesWithPlainLoop) {
  for_each_shape([&](DType type, int rows, int columns) {
    const AnyView x = tensors_.random("x", type, rows, columns), in_place = tensors_.copy(x);
    const AnyView w = tensors_.random("w", accum_type(type), columns);
    const AnyView r = tensors_.poisoned(accum_type(type), rows);
    const AnyView y = tensors_.poisoned(type, rows, columns);
    const Normed expected = plain_forward(read(x), read(w));

    ops::rms_norm_forward(exec_, x, w, kEps, r, y);
    expect_close(r, expected.r.values, tolerance(accum_type(type)), "r");
    expect_close(y, expected.y.values, tolerance(type), "y");

    ops::rms_norm_forward(exec_, in_place, w, kEps, r, in_place);
    expect_close(in_place, expected.y.values, tolerance(type), "y is x");
  });
}

/// Behind either of the two forward operations.
TEST_F(RmsNorm, AgainHasTheSameBits) {
  for_each_shape([&](DType type, int rows, int columns) {
    const AnyView x = tensors_.random("x", type, rows, columns);
    const AnyView addend = tensors_.random("addend", type, rows, columns);
    const AnyView w = tensors_.random("w", accum_type(type), columns);
    const auto result = [&] { return tensors_.poisoned(type, rows, columns); };
    const AnyView r = tensors_.poisoned(accum_type(type), rows), sum = result();
    const auto expect_again = [&](const AnyIn& of, const AnyView& y, const std::string& what) {
      const AnyView again = result(), in_place = tensors_.copy(of);
      ops::rms_norm_again(exec_, of, w, r, again);
      ops::rms_norm_again(exec_, in_place, w, r, in_place);
      EXPECT_EQ(read(again).values, read(y).values) << what;
      EXPECT_EQ(read(in_place).values, read(y).values) << what << ", y is x";
    };
    const AnyView y = result(), y_of_sum = result();
    ops::rms_norm_forward(exec_, x, w, kEps, r, y);
    expect_again(x, y, "norm");
    ops::add_rms_norm_forward(exec_, x, addend, w, kEps, sum, r, y_of_sum);
    expect_again(sum, y_of_sum, "norm of a sum");
  });
}

/// One pass is what the two operations are, wherever the sum goes.
TEST_F(RmsNorm, ForwardOfASumIsAddThenNorm) {
  for_each_shape([&](DType type, int rows, int columns) {
    const AnyView x = tensors_.random("x", type, rows, columns);
    const AnyView addend = tensors_.random("addend", type, rows, columns);
    const AnyView w = tensors_.random("w", accum_type(type), columns);
    const auto result = [&] { return tensors_.poisoned(type, rows, columns); };
    const AnyView sum = result(), y = result();
    const AnyView r = tensors_.poisoned(accum_type(type), rows);
    ops::add(exec_, x, addend, sum);
    ops::rms_norm_forward(exec_, sum, w, kEps, r, y);
    const auto expect = [&](const AnyIn& one, const AnyIn& other, const AnyView& into,
                            const std::string& what) {
      const AnyView fused_r = tensors_.poisoned(accum_type(type), rows), fused_y = result();
      ops::add_rms_norm_forward(exec_, one, other, w, kEps, into, fused_r, fused_y);
      expect_close(into, read(sum).values, kExact, "sum, " + what);
      expect_close(fused_r, read(r).values, tolerance(accum_type(type)), "r, " + what);
      expect_close(fused_y, read(y).values, tolerance(type), "y, " + what);
    };
    const AnyView on_x = tensors_.copy(x), on_addend = tensors_.copy(addend);
    expect(x, addend, result(), "apart");
    expect(on_x, addend, on_x, "sum is x");
    expect(x, on_addend, on_addend, "sum is the addend");
  });
}

TEST_F(RmsNorm, BackwardAgreesWithPlainLoop) {
  for_each_shape([&](DType type, int rows, int columns) {
    const AnyView x = tensors_.random("x", type, rows, columns);
    const AnyView w = tensors_.random("w", accum_type(type), columns);
    const AnyView r = tensors_.poisoned(accum_type(type), rows);
    const AnyView dy = tensors_.random("dy", type, rows, columns);
    const AnyView passed = tensors_.random("residual", type, rows, columns);
    const AnyView start = tensors_.random("dw", accum_type(type), columns);
    ops::rms_norm_forward(exec_, x, w, kEps, r, tensors_.poisoned(type, rows, columns));
    const auto expect = [&](const AnyIn& upstream, const AnyIn& residual, const AnyView& dx,
                            const std::string& what) {
      const Matrix base = residual.rank() == 0 ? zeros(rows, columns) : read(residual);
      const Gradients expected =
          plain_backward(read(x), read(w), read(upstream), {base, read(start)});
      const AnyView dw = tensors_.copy(start);
      backward(x, w, r, upstream, residual, dw, dx);
      // With one column the gradient of x all but vanishes.
      expect_close(dx, expected.dx.values, tolerance(type), "dx, " + what, /*typical=*/1);
      expect_close(dw, expected.dw.values, tolerance(accum_type(type)), "dw, " + what, 1);
    };
    expect(dy, {}, tensors_.poisoned(type, rows, columns), "no residual");
    expect(dy, passed, tensors_.poisoned(type, rows, columns), "residual");
    const AnyView on_dy = tensors_.copy(dy), also_on_dy = tensors_.copy(dy);
    const AnyView on_residual = tensors_.copy(passed);
    expect(on_dy, {}, on_dy, "dx is dy, no residual");
    expect(also_on_dy, passed, also_on_dy, "dx is dy");
    expect(dy, on_residual, on_residual, "dx is the residual");
  });
}

TEST_F(RmsNorm, BackwardIsTheGradientOfForward) {
  constexpr double kLargeEps = 0.3;
  const AnyView x = tensors_.random("x", DType::fp64, 3, 5);
  const AnyView w = tensors_.random("w", DType::fp64, 5);
  const AnyView dy = tensors_.random("dy", DType::fp64, 3, 5);
  const AnyView r = tensors_.poisoned(DType::fp64, 3), y = tensors_.poisoned(DType::fp64, 3, 5);
  const AnyView dx = tensors_.poisoned(DType::fp64, 3, 5),
                dw = vector(DType::fp64, {0, 0, 0, 0, 0});
  const auto objective = [&] {
    ops::rms_norm_forward(exec_, x, w, kLargeEps, r, y);
    return dot(read(y).values, read(dy).values);
  };
  objective();
  backward(x, w, r, dy, {}, dw, dx);
  expect_gradient(dx, x, objective, "dx");
  expect_gradient(dw, w, objective, "dw");
}

/// Rows of zeros divide by sqrt(eps), not by zero; r is then large, but a number.
TEST_F(RmsNorm, ARowOfZerosStaysFinite) {
  const AnyView x = tensors_.values(DType::fp32, {0, 0, 3, 4}, 2, 2);
  const AnyView w = vector(DType::fp32, {1, 2});
  const AnyView r = tensors_.poisoned(DType::fp32, 2), y = tensors_.poisoned(DType::fp32, 2, 2);
  ops::rms_norm_forward(exec_, x, w, kEps, r, y);
  const double second = 1 / std::sqrt(12.5 + kEps);
  expect_close(r, {1 / std::sqrt(kEps), second}, tolerance(DType::fp32), "r");
  expect_close(y, {0, 0, 3 * second, 8 * second}, tolerance(DType::fp32), "y");
}

}  // namespace
}  // namespace konclave
