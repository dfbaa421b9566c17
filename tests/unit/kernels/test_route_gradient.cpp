#include "tests/unit/kernels/routing.hpp"

namespace konclave {
namespace {

constexpr double kZ = 0.02;

/// dl by the full Jacobians of both softmaxes.
Matrix plain_gradient(const Matrix& scores, const Matrix& lse, const Matrix& weights,
                      const Matrix& dweights, const std::vector<int>& experts,
                      const std::vector<int>& offsets, const Matrix& slope, bool pre_softmax) {
  Matrix dl = scores;
  for (std::int64_t w = 0; w < slope.rows; ++w) {
    const auto window = static_cast<std::size_t>(w);
    for (std::int64_t t = offsets[window]; t < offsets[window + 1]; ++t) {
      const auto expert = [&](std::int64_t k) {
        return experts[static_cast<std::size_t>(t * weights.columns + k)];
      };
      for (std::int64_t j = 0; j < scores.columns; ++j) {
        double sum = 2 * kZ * lse(t, 0) * scores(t, j);
        for (std::int64_t e = 0; e < scores.columns; ++e) {
          sum += slope(w, e) * scores(t, e) * ((e == j ? 1 : 0) - scores(t, j));
        }
        for (std::int64_t k = 0; k < weights.columns; ++k) {
          // The weight of logit j in the softmax that gives weights: over all, or the chosen.
          double of_j = pre_softmax ? scores(t, j) : 0;
          for (std::int64_t i = 0; i < weights.columns && !pre_softmax; ++i) {
            if (expert(i) == j) of_j = weights(t, i);
          }
          sum += dweights(t, k) * weights(t, k) * ((expert(k) == j ? 1 : 0) - of_j);
        }
        dl(t, j) = sum;
      }
    }
  }
  return dl;
}

class RouteBackward : public RoutingTest {
 protected:
  struct Problem {
    ops::Routed routed;
    AnyView dweights, slope, dl;
    std::vector<int> offsets;
  };
  Problem problem(const AnyView& logits, int top_k, bool pre_softmax) {
    const DType type = logits.type();
    const std::int64_t tokens = logits.extent(0), experts = logits.extent(1);
    return {route(logits, top_k, pre_softmax), tensors_.random("dweights", type, tokens, top_k),
            tensors_.random("slope", type, 3, experts), tensors_.poisoned(type, tokens, experts),
            window_offsets(static_cast<int>(tokens))};
  }
  void backward(const Problem& p, bool pre_softmax) {
    ops::route_backward(exec_,
                        {p.routed.scores, p.routed.lse, p.routed.weights, p.dweights,
                         p.routed.experts, tensors_.integers(p.offsets), p.slope, kZ, pre_softmax},
                        p.dl);
  }
};

TEST_F(RouteBackward, AgreesWithPlainLoop) {
  for_each_routing([&](DType type, const RoutingCase& each, bool pre_softmax) {
    const Problem p =
        problem(tensors_.random("l", type, each.tokens, each.experts), each.top_k, pre_softmax);
    backward(p, pre_softmax);
    const Matrix expected = plain_gradient(
        read(p.routed.scores), read(p.routed.lse), read(p.routed.weights), read(p.dweights),
        flat(p.routed.experts), p.offsets, read(p.slope), pre_softmax);
    expect_close(p.dl, expected.values, tolerance(type), "dl", /*typical=*/0.1);
  });
}

/// Objective: the weights times dweights, the switch loss of all windows and the z-loss.
TEST_F(RouteBackward, IsTheGradientOfAllThatHangsOnTheLogits) {
  constexpr double kCoefficient = 0.7, kScale = 0.4;
  for (const bool pre_softmax : {false, true}) {
    for (const int top_k : {1, 2, 5}) {
      SCOPED_TRACE(testing::Message() << "K = " << top_k << (pre_softmax ? ", pre" : ", post"));
      const AnyView logits = tensors_.random("l", DType::fp64, 7, 5);
      const Problem p = problem(logits, top_k, pre_softmax);
      const auto counts = tensors_.poisoned(DType::fp64, 3, 5).as2<double>();
      const auto sums = tensors_.poisoned(DType::fp64, 3, 5).as2<double>();
      const View1<double> losses = doubles(3);
      const View1<const int> offsets = tensors_.integers(p.offsets);
      const auto objective = [&] {
        ops::route(exec_, logits, pre_softmax, p.routed);
        ops::window_statistics(exec_, p.routed.scores, p.routed.experts, offsets, counts, sums);
        ops::switch_loss(exec_, /*window_tokens=*/3, counts, sums, top_k, kCoefficient, kScale,
                         losses, p.slope);
        const std::vector<double> lse = read(p.routed.lse).values;
        return dot(read(p.routed.weights).values, read(p.dweights).values) +
               kScale * dot(to_host(exec_, losses), {1, 1, 1}) + kZ * dot(lse, lse);
      };
      objective();
      backward(p, pre_softmax);
      expect_gradient(p.dl, logits, objective, "dl");
    }
  }
}

}  // namespace
}  // namespace konclave
