#include "ops/row_gate.hpp"
#include "tests/unit/kernels/kernel_test.hpp"

#include <cmath>

namespace konclave {
namespace {

struct Results {
  Matrix g, y, ds, dz, dw, dx;
};

/// Everything at once, with y, dw and dx added to what is there.
Results plain(const Matrix& x, const std::vector<double>& w, const Matrix& s, const Matrix& dy,
              const Matrix& before) {
  const Matrix row{x.rows, 1, std::vector<double>(static_cast<std::size_t>(x.rows))};
  Results out{row, before, dy, row, {1, x.columns, w}, before};
  for (std::int64_t t = 0; t < x.rows; ++t) {
    double product = 0, dot = 0;
    for (std::int64_t h = 0; h < x.columns; ++h) {
      product += x(t, h) * w[static_cast<std::size_t>(h)];
      dot += dy(t, h) * s(t, h);
    }
    const double gate = 1 / (1 + std::exp(-product));
    out.g(t, 0) = gate;
    out.dz(t, 0) = gate * (1 - gate) * dot;
    for (std::int64_t h = 0; h < x.columns; ++h) {
      out.y(t, h) += gate * s(t, h);
      out.ds(t, h) *= gate;
      out.dx(t, h) += out.dz(t, 0) * w[static_cast<std::size_t>(h)];
      out.dw(0, h) += out.dz(t, 0) * x(t, h);
    }
  }
  return out;
}

class RowGate : public KernelTest {};

TEST_F(RowGate, AgreesWithPlainLoops) {
  for_each_shape([&](DType type, int rows, int columns) {
    const auto random = [&](const char* name) {
      return tensors_.random(name, type, rows, columns);
    };
    const AnyView x = random("x"), s = random("s"), dy = random("dy"), before = random("before");
    const AnyView w = tensors_.random("w", accum_type(type), columns);
    const Results expected = plain(read(x), to_doubles(exec_, w), read(s), read(dy), read(before));
    const Tolerance allowed = tolerance(type);

    const AnyView g = tensors_.poisoned(accum_type(type), rows), y = tensors_.copy(before);
    ops::row_gate_forward(exec_, x, w, s, g, y);
    expect_close(g, expected.g.values, allowed, "g");
    expect_close(y, expected.y.values, allowed, "y");

    const AnyView ds = tensors_.poisoned(type, rows, columns), on_s = tensors_.copy(s);
    const AnyView dz = tensors_.poisoned(accum_type(type), rows), again = tensors_.copy(dz);
    ops::row_gate_backward(exec_, dy, s, g, ds, dz);
    ops::row_gate_backward(exec_, dy, on_s, g, on_s, again);
    expect_close(ds, expected.ds.values, allowed, "ds");
    expect_close(on_s, expected.ds.values, allowed, "ds is s");
    // A sum of products of both signs.
    expect_close(dz, expected.dz.values, allowed, "dz", 1);
    EXPECT_EQ(to_doubles(exec_, again), to_doubles(exec_, dz));

    const AnyView dw = tensors_.copy(w), dx = tensors_.copy(before);
    ops::row_product_backward(exec_, dz, x, w, dw, dx);
    expect_close(dw, expected.dw.values, allowed, "dw", 1);
    expect_close(dx, expected.dx.values, allowed, "dx", 1);
  });
}

}  // namespace
}  // namespace konclave
