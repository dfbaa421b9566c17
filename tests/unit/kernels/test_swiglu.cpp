#include "ops/swiglu.hpp"
#include "tests/unit/kernels/kernel_test.hpp"

#include <cmath>

namespace konclave {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double silu(double x) { return x * sigmoid(x); }

struct Results {
  Matrix y, dg, du, dp;
};

/// Everything at once; an empty p stands for ones.
Results plain(const Matrix& g, const Matrix& u, const Matrix& p, const Matrix& dy) {
  Results out{g, g, g, {g.rows, 1, std::vector<double>(static_cast<std::size_t>(g.rows))}};
  for (std::int64_t t = 0; t < g.rows; ++t) {
    const double weight = p.values.empty() ? 1 : p(t, 0);
    for (std::int64_t f = 0; f < g.columns; ++f) {
      const double x = g(t, f), s = sigmoid(x);
      out.y(t, f) = weight * silu(x) * u(t, f);
      out.dg(t, f) = weight * dy(t, f) * u(t, f) * (s + x * s * (1 - s));
      out.du(t, f) = weight * dy(t, f) * silu(x);
      out.dp(t, 0) += dy(t, f) * silu(x) * u(t, f);
    }
  }
  return out;
}

class SwiGlu : public KernelTest {
 protected:
  /// f(type, g, u, p, dy, expected) for all shapes, with p and without.
  template <typename F> void for_each_problem(F&& f) {
    for_each_shape([&](DType type, int rows, int columns) {
      const AnyView g = tensors_.random("g", type, rows, columns);
      const AnyView u = tensors_.random("u", type, rows, columns);
      const AnyView dy = tensors_.random("dy", type, rows, columns);
      for (const AnyView& p : {AnyView(), tensors_.random("p", accum_type(type), rows)}) {
        SCOPED_TRACE(p.rank() == 0 ? "without p" : "with p");
        f(type, g, u, p, dy, plain(read(g), read(u), read(p), read(dy)));
      }
    });
  }
};

TEST_F(SwiGlu, ForwardAgreesWithPlainLoop) {
  for_each_problem([&](DType type, const AnyView& g, const AnyView& u, const AnyView& p,
                       const AnyView&, const Results& expected) {
    const AnyView y = tensors_.poisoned(type, g.extent(0), g.extent(1));
    const AnyView on_g = tensors_.copy(g), on_u = tensors_.copy(u);
    ops::swiglu_forward(exec_, g, u, p, y);
    ops::swiglu_forward(exec_, on_g, u, p, on_g);
    ops::swiglu_forward(exec_, g, on_u, p, on_u);
    expect_close(y, expected.y.values, tolerance(type), "y apart");
    expect_close(on_g, expected.y.values, tolerance(type), "y is g");
    expect_close(on_u, expected.y.values, tolerance(type), "y is u");
  });
}

TEST_F(SwiGlu, BackwardAgreesWithPlainLoop) {
  for_each_problem([&](DType type, const AnyView& g, const AnyView& u, const AnyView& p,
                       const AnyView& dy, const Results& expected) {
    const auto like = [&](const AnyView& view) {
      return tensors_.poisoned(type, view.extent(0), view.extent(1));
    };
    const auto run = [&](const AnyView& gate, const AnyView& up, const AnyView& upstream,
                         const AnyView& y, const AnyView& dg, const AnyView& du) {
      const AnyView dp =
          p.rank() == 0 ? AnyView() : tensors_.poisoned(accum_type(type), g.extent(0));
      ops::swiglu_backward(exec_, gate, up, p, upstream, y, dg, du, dp);
      expect_close(y, expected.y.values, tolerance(type), "y");
      expect_close(dg, expected.dg.values, tolerance(type), "dg");
      expect_close(du, expected.du.values, tolerance(type), "du");
      if (p.rank() == 0) return;
      expect_close(dp, expected.dp.values, tolerance(accum_type(type)), "dp", /*typical=*/1);
    };
    run(g, u, dy, like(g), like(g), like(g));
    const AnyView on_g = tensors_.copy(g), on_u = tensors_.copy(u), on_dy = tensors_.copy(dy);
    SCOPED_TRACE("in place");
    run(on_g, on_u, on_dy, on_dy, on_g, on_u);
  });
}

TEST_F(SwiGlu, BackwardIsTheGradientOfForward) {
  const auto random = [&](const char* name) { return tensors_.random(name, DType::fp64, 3, 5); };
  const auto result = [&] { return tensors_.poisoned(DType::fp64, 3, 5); };
  const AnyView g = random("g"), u = random("u"), dy = random("dy");
  const AnyView p = tensors_.random("p", DType::fp64, 3), dp = tensors_.poisoned(DType::fp64, 3);
  const AnyView y = result(), dg = result(), du = result(), again = result();
  ops::swiglu_backward(exec_, g, u, p, dy, again, dg, du, dp);
  const auto objective = [&] {
    ops::swiglu_forward(exec_, g, u, p, y);
    return dot(read(y).values, read(dy).values);
  };
  objective();
  expect_close(again, read(y).values, tolerance(DType::fp64), "y of backward");
  expect_gradient(dg, g, objective, "dg");
  expect_gradient(du, u, objective, "du");
  expect_gradient(dp, p, objective, "dp");
}

TEST_F(SwiGlu, LargeArgumentsNeitherOverflowNorVanish) {
  const std::vector<double> gates{-1e4, -700, -100, -89, -81, -30, 0, 30, 89, 100, 700, 1e4};
  for (const DType type : kTypes) {
    for (const double gate : gates) {
      SCOPED_TRACE(testing::Message() << name_of(type) << ", g = " << gate);
      const AnyView g = tensors_.values(type, {gate}, 1, 1), one = tensors_.values(type, {1}, 1, 1);
      const auto result = [&] { return tensors_.poisoned(type, 1, 1); };
      const AnyView y = result(), again = result(), dg = result(), du = result();
      const double x = read(g)(0, 0);
      ops::swiglu_forward(exec_, g, one, {}, y);
      ops::swiglu_backward(exec_, g, one, {}, one, again, dg, du, {});
      const double s = sigmoid(x);
      expect_close(y, {silu(x)}, tolerance(type), "y", /*typical=*/1e-5);
      expect_close(again, {silu(x)}, tolerance(type), "y of backward", 1e-5);
      expect_close(dg, {s + x * s * (1 - s)}, tolerance(type), "dg", 1e-5);
      expect_close(du, {silu(x)}, tolerance(type), "du", 1e-5);
    }
  }
}

}  // namespace
}  // namespace konclave
