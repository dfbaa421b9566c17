#include "ops/rope.hpp"
#include "tests/unit/kernels/kernel_test.hpp"

#include <cmath>

namespace konclave {
namespace {

struct Case {
  int tokens, heads, half;
};
constexpr Case kCases[] = {{0, 2, 3}, {1, 1, 1}, {5, 3, 2}, {13, 2, 17}, {33, 1, 32}, {7, 5, 65}};
constexpr int kPositions = 11;

class Rotate : public KernelTest {
 protected:
  /// Positions out of order and repeated; tables of true angles, so that lengths are kept.
  void fill(const Case& each, DType type) {
    std::vector<int> places;
    for (int t = 0; t < each.tokens; ++t) places.push_back((7 * t + 3) % kPositions);
    positions_ = tensors_.integers(places);
    std::vector<double> cosine, sine;
    for (int i = 0; i < kPositions * each.half; ++i) {
      cosine.push_back(std::cos(0.7 * i));
      sine.push_back(std::sin(0.7 * i));
    }
    cosine_ = tensors_.values(accum_type(type), cosine, kPositions, each.half);
    sine_ = tensors_.values(accum_type(type), sine, kPositions, each.half);
  }
  void rotate(bool inverse, const AnyView& q, const AnyView& k = {}) const {
    ops::rotate(exec_, positions_, cosine_, sine_, inverse, q, k);
  }
  Matrix plain(const Case& each, bool inverse, const Matrix& x) const {
    const Matrix cosine = read(cosine_), sine = read(sine_);
    const std::vector<int> positions = to_host(exec_, positions_);
    Matrix result = x;
    for (int t = 0; t < each.tokens; ++t) {
      for (int i = 0; i < each.heads * each.half; ++i) {
        const int low = i / each.half * 2 * each.half + i % each.half, high = low + each.half;
        const int position = positions[static_cast<std::size_t>(t)];
        const double c = cosine(position, i % each.half);
        const double s = (inverse ? -1 : 1) * sine(position, i % each.half);
        result(t, low) = x(t, low) * c - x(t, high) * s;
        result(t, high) = x(t, high) * c + x(t, low) * s;
      }
    }
    return result;
  }

  View1<const int> positions_;
  AnyView cosine_, sine_;
};

TEST_F(Rotate, AgreesWithPlainLoopAndTurnsBack) {
  for (const DType type : kTypes) {
    for (const Case& each : kCases) {
      SCOPED_TRACE(testing::Message() << name_of(type) << ", " << each.tokens << " tokens, "
                                      << each.heads << " heads of " << 2 * each.half);
      tensors_ = Tensors(exec_);
      fill(each, type);
      const AnyView x = tensors_.random("x", type, each.tokens, 2 * each.heads * each.half);
      const Matrix start = read(x);
      rotate(/*inverse=*/false, x);
      const Matrix turned = read(x);
      expect_close(x, plain(each, false, start).values, tolerance(type), "rotated");
      rotate(/*inverse=*/true, x);
      expect_close(x, plain(each, true, turned).values, tolerance(type), "rotated back");
      const Tolerance two_roundings{2 * tolerance(type).norm, 2 * tolerance(type).element};
      expect_close(x, start.values, two_roundings, "as at the start");
    }
  }
}

/// Together they are what each is alone, to the bit.
TEST_F(Rotate, TurnsKeysOfFewerHeadsAlong) {
  for (const DType type : kTypes) {
    for (const Case& each : kCases) {
      SCOPED_TRACE(testing::Message() << name_of(type) << ", " << each.tokens << " tokens, "
                                      << each.heads << " heads of " << 2 * each.half);
      tensors_ = Tensors(exec_);
      fill(each, type);
      const AnyView q = tensors_.random("q", type, each.tokens, 2 * (each.heads + 1) * each.half);
      const AnyView k = tensors_.random("k", type, each.tokens, 2 * each.heads * each.half);
      const AnyView q_alone = tensors_.copy(q), k_alone = tensors_.copy(k);
      rotate(/*inverse=*/false, q, k);
      rotate(/*inverse=*/false, q_alone);
      rotate(/*inverse=*/false, k_alone);
      expect_close(q, read(q_alone).values, kExact, "q");
      expect_close(k, read(k_alone).values, kExact, "k");
    }
  }
}

TEST_F(Rotate, InverseIsTheGradient) {
  const Case each{3, 2, 3};
  fill(each, DType::fp64);
  const AnyView start = tensors_.random("x", DType::fp64, 3, 12);
  const AnyView upstream = tensors_.random("dy", DType::fp64, 3, 12);
  const AnyView gradient = tensors_.copy(upstream);
  rotate(/*inverse=*/true, gradient);
  const auto objective = [&] {
    const AnyView x = tensors_.copy(start);
    rotate(/*inverse=*/false, x);
    return dot(read(x).values, read(upstream).values);
  };
  expect_gradient(gradient, start, objective, "dx");
}

}  // namespace
}  // namespace konclave
