#include "tests/unit/kernels/routing.hpp"

#include <algorithm>
#include <limits>
#include <numeric>

namespace konclave {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

struct Plain {
  Matrix scores, lse, weights;
  std::vector<int> experts;
};

/// By a full sort of each row.
Plain plain_route(const Matrix& l, int top_k, bool pre_softmax) {
  Plain out{l, {l.rows, 1, {}}, {l.rows, top_k, {}}, {}};
  for (std::int64_t t = 0; t < l.rows; ++t) {
    double sum = 0;
    for (std::int64_t e = 0; e < l.columns; ++e) sum += std::exp(l(t, e));
    for (std::int64_t e = 0; e < l.columns; ++e) out.scores(t, e) = std::exp(l(t, e)) / sum;
    out.lse.values.push_back(std::log(sum));
    std::vector<int> order(static_cast<std::size_t>(l.columns));
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return l(t, a) > l(t, b); });
    order.resize(static_cast<std::size_t>(top_k));
    std::sort(order.begin(), order.end());
    double chosen = 0;
    for (const int e : order) chosen += out.scores(t, e);
    for (const int e : order) {
      out.experts.push_back(e);
      out.weights.values.push_back(out.scores(t, e) / (pre_softmax ? 1 : chosen));
    }
  }
  return out;
}

class Route : public RoutingTest {
 protected:
  void expect_route(const AnyView& logits, int top_k, bool pre_softmax) {
    const Plain expected = plain_route(read(logits), top_k, pre_softmax);
    const ops::Routed routed = route(logits, top_k, pre_softmax);
    const Tolerance allowed = tolerance(logits.type());
    EXPECT_EQ(flat(routed.experts), expected.experts);
    expect_close(routed.scores, expected.scores.values, allowed, "scores");
    expect_close(routed.lse, expected.lse.values, allowed, "lse", /*typical=*/1);
    expect_close(routed.weights, expected.weights.values, allowed, "weights");
  }
};

TEST_F(Route, AgreesWithPlainLoop) {
  for_each_routing([&](DType type, const RoutingCase& each, bool pre_softmax) {
    expect_route(tensors_.random("l", type, each.tokens, each.experts), each.top_k, pre_softmax);
  });
}

TEST_F(Route, EqualLogitsGoToTheLowestExpert) {
  for_each_routing([&](DType type, const RoutingCase& each, bool pre_softmax) {
    std::vector<double> halves = random_values("l", each.tokens * each.experts);
    for (double& value : halves) value = std::round(2 * value) / 2;
    expect_route(tensors_.values(type, halves, each.tokens, each.experts), each.top_k, pre_softmax);
  });
  const AnyView equal = tensors_.values(DType::fp32, std::vector<double>(10, -3), 2, 5);
  EXPECT_EQ(flat(route(equal, 3, false).experts), (std::vector<int>{0, 1, 2, 0, 1, 2}));
}

TEST_F(Route, LargeLogitsDoNotOverflow) {
  for (const DType type : kAccumTypes) {
    const AnyView logits = tensors_.values(type, {1e4, -1e4, 1e4, 1e4 - 1}, 1, 4);
    const double e = std::exp(-1.0);
    for (const bool pre_softmax : {false, true}) {
      const ops::Routed routed = route(logits, 2, pre_softmax);
      const double share = pre_softmax ? 1 / (2 + e) : 0.5;
      EXPECT_EQ(flat(routed.experts), (std::vector<int>{0, 2}));
      expect_close(routed.weights, {share, share}, tolerance(type), "weights");
      expect_close(routed.scores, {1 / (2 + e), 0, 1 / (2 + e), e / (2 + e)}, tolerance(type),
                   "scores");
      expect_close(routed.lse, {1e4 + std::log(2 + e)}, tolerance(type), "lse");
    }
  }
}

TEST_F(Route, ANaNKeepsExpertsValidAndReachesTheWeights) {
  struct Case {
    std::vector<double> logits;
    std::vector<int> experts;
  };
  const Case cases[] = {{{kNaN, 1, 3, 2}, {2, 3}},
                        {{1, kNaN, 3, 2}, {2, 3}},
                        {{3, 2, 1, kNaN}, {0, 1}},
                        {{kNaN, kNaN, 5, kNaN}, {0, 2}},
                        {{kNaN, kNaN, kNaN, kNaN}, {0, 1}}};
  for (const DType type : kAccumTypes) {
    for (const Case& each : cases) {
      for (const bool pre_softmax : {false, true}) {
        SCOPED_TRACE(testing::PrintToString(each.logits) + (pre_softmax ? " pre" : " post"));
        const ops::Routed routed = route(tensors_.values(type, each.logits, 1, 4), 2, pre_softmax);
        EXPECT_EQ(flat(routed.experts), each.experts);
        for (const double weight : read(routed.weights).values) EXPECT_TRUE(std::isnan(weight));
        for (const double score : read(routed.scores).values) EXPECT_TRUE(std::isnan(score));
        EXPECT_TRUE(std::isnan(read(routed.lse)(0, 0)));
      }
    }
  }
}

TEST_F(Route, RefusesMoreChoicesThanExperts) {
  EXPECT_THROW(route(tensors_.random("l", DType::fp32, 2, 3), 4, false), Error);
  EXPECT_THROW(route(tensors_.random("l", DType::fp32, 2, 3), 0, false), Error);
}

TEST(RouterBytes, CountLogitsInAndResultsOut) {
  constexpr int kFp32 = 4, kIndex = 4;
  const int logits = 7 * 5, scores = 7 * 5, lse = 7, weights = 7 * 2, experts = 7 * 2;
  EXPECT_EQ(ops::router_bytes(/*tokens=*/7, /*experts=*/5, /*top_k=*/2, DType::fp32),
            (logits + scores + lse + weights) * kFp32 + experts * kIndex);
}

class WindowStatistics : public RoutingTest {};

TEST_F(WindowStatistics, CountsAndSumsOverEachWindow) {
  for_each_routing([&](DType type, const RoutingCase& each, bool pre_softmax) {
    const ops::Routed routed =
        route(tensors_.random("l", type, each.tokens, each.experts), each.top_k, pre_softmax);
    const std::vector<int> offsets = window_offsets(each.tokens), chosen = flat(routed.experts);
    const AnyView counts = tensors_.poisoned(DType::fp64, 3, each.experts);
    const AnyView sums = tensors_.poisoned(DType::fp64, 3, each.experts);
    const Matrix scores = read(routed.scores);
    Matrix expected_counts = zeros(3, each.experts), expected_sums = zeros(3, each.experts);
    for (int w = 0; w < 3; ++w) {
      const auto window = static_cast<std::size_t>(w);
      for (int t = offsets[window]; t < offsets[window + 1]; ++t) {
        for (int e = 0; e < each.experts; ++e) expected_sums(w, e) += scores(t, e);
        for (int k = 0; k < each.top_k; ++k) {
          ++expected_counts(w, chosen[static_cast<std::size_t>(t * each.top_k + k)]);
        }
      }
    }
    ops::window_statistics(exec_, routed.scores, routed.experts, tensors_.integers(offsets),
                           counts.as2<double>(), sums.as2<double>());
    EXPECT_EQ(read(counts).values, expected_counts.values);
    expect_close(sums, expected_sums.values, tolerance(DType::fp64), "sums");
  });
}

class SwitchLoss : public RoutingTest {
 protected:
  struct Result {
    std::vector<double> loss, slope;
  };
  Result run(DType type, int windows, std::int64_t window_tokens, const std::vector<double>& counts,
             const std::vector<double>& sums, int top_k, double coefficient, double scale) {
    const std::int64_t experts = static_cast<std::int64_t>(counts.size()) / std::max(windows, 1);
    const AnyView slope = tensors_.poisoned(type, windows, experts);
    const View1<double> loss = doubles(windows);
    ops::switch_loss(exec_, window_tokens, values(windows, experts, counts),
                     values(windows, experts, sums), top_k, coefficient, scale, loss, slope);
    return {to_host(exec_, loss), read(slope).values};
  }

 private:
  View2<double> values(int windows, std::int64_t experts, const std::vector<double>& all) {
    return tensors_.values(DType::fp64, all, windows, experts).as2<double>();
  }
};

/// Two windows of 4 tokens, 3 experts, K = 1, c = 0.5; the factor is E c / (K Tw^2).
TEST_F(SwitchLoss, IsRightByHand) {
  for (const DType type : kAccumTypes) {
    const Result result = run(type, /*windows=*/2, /*window_tokens=*/4, {3, 1, 0, 0, 2, 2},
                              {2, 1, 1, 0.5, 0.25, 3.25},
                              /*top_k=*/1, /*coefficient=*/0.5, /*scale=*/0.25);
    const double factor = 1.5 / 16;
    EXPECT_TRUE(close(result.loss, {factor * 7, factor * 7}, tolerance(type)));
    EXPECT_TRUE(close(result.slope,
                      {factor * 0.75, factor * 0.25, 0, 0, factor * 0.5, factor * 0.5},
                      tolerance(type)));
  }
}

TEST_F(SwitchLoss, IsTheCoefficientWhenBalancedAndZeroWithoutTokens) {
  const int experts = 4, top_k = 2, tokens = 6;
  const std::vector<double> counts{3, 3, 3, 3, 0, 0, 0, 0};
  const std::vector<double> sums{1.5, 1.5, 1.5, 1.5, 0, 0, 0, 0};
  const Result result = run(DType::fp64, 2, tokens, counts, sums, top_k, 0.01, 1);
  EXPECT_TRUE(close(result.loss, {0.01, 0}, tolerance(DType::fp64)));
  const double slope = experts * 0.01 / (top_k * tokens * tokens) * 3;
  EXPECT_TRUE(
      close(result.slope, {slope, slope, slope, slope, 0, 0, 0, 0}, tolerance(DType::fp64)));
}

TEST_F(SwitchLoss, NeedsTheTokensOfAWindow) {
  EXPECT_THROW(run(DType::fp64, 1, 0, {1, 1}, {1, 1}, 1, 1, 1), Error);
  EXPECT_TRUE(run(DType::fp64, 0, 0, {}, {}, 1, 1, 1).loss.empty());
}

}  // namespace
}  // namespace konclave
