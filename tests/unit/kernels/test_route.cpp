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

double sum_of(const Values& values) { return std::accumulate(values.begin(), values.end(), 0.0); }

Values softmax(Values values) {
  for (double& value : values) value = std::exp(value);
  const double sum = sum_of(values);
  for (double& value : values) value /= sum;
  return values;
}

/// -inf in all groups but the best.
Values in_best_groups(Values values, const ops::RouteRule& rule, int top_k) {
  if (rule.num_groups <= 1) return values;
  const auto size = static_cast<std::ptrdiff_t>(values.size()) / rule.num_groups;
  Values worth;
  for (auto group = values.begin(); group != values.end(); group += size) {
    Values sorted(group, group + size);
    std::sort(sorted.rbegin(), sorted.rend());
    sorted.resize(static_cast<std::size_t>(top_k / rule.group_top_k));
    worth.push_back(sum_of(sorted));
  }
  const std::vector<int> kept = largest(worth, rule.group_top_k);
  for (int g = 0; g < rule.num_groups; ++g) {
    if (std::find(kept.begin(), kept.end(), g) != kept.end()) continue;
    std::fill_n(values.begin() + g * size, size, -std::numeric_limits<double>::infinity());
  }
  return values;
}

/// By full sorts of each row.
Plain plain_route(const Matrix& l, int top_k, const ops::RouteRule& rule, const Values& bias) {
  const bool sigmoid = rule.score == ops::ScoreFunction::sigmoid;
  Plain out{{l.rows, l.columns, {}}, {l.rows, 1, {}}, {l.rows, top_k, {}}, {}};
  for (std::int64_t t = 0; t < l.rows; ++t) {
    Values logits, by, sigmoids;
    for (std::int64_t e = 0; e < l.columns; ++e) logits.push_back(l(t, e));
    for (const double logit : logits) sigmoids.push_back(1 / (1 + std::exp(-logit)));
    Values scores = softmax(logits);
    if (sigmoid) {
      scores = sigmoids;
      for (double& score : scores) score /= sum_of(sigmoids);
    }
    by = sigmoid ? sigmoids : rule.pre_softmax || !bias.empty() ? scores : logits;
    for (std::size_t e = 0; e < bias.size(); ++e) by[e] += bias[e];
    const std::vector<int> chosen = largest(in_best_groups(by, rule, top_k), top_k);
    out.experts.insert(out.experts.end(), chosen.begin(), chosen.end());
    Values weights;
    for (const int e : chosen) {
      weights.push_back((sigmoid ? sigmoids : scores)[static_cast<std::size_t>(e)]);
    }
    const bool as_they_are = sigmoid ? top_k == 1 : rule.pre_softmax;
    const double divisor = as_they_are ? 1 : sum_of(weights);
    for (const double weight : weights) {
      out.weights.values.push_back(rule.scaling_factor * weight / divisor);
    }
    out.scores.values.insert(out.scores.values.end(), scores.begin(), scores.end());
    double sum = 0;
    for (const double logit : logits) sum += std::exp(logit);
    out.lse.values.push_back(std::log(sum));
  }
  return out;
}

class Route : public RoutingTest {
 protected:
  void expect_route(const AnyView& logits, int top_k, const ops::RouteRule& rule,
                    const ops::RouteChoice& choice = {}) {
    const Plain expected = plain_route(read(logits), top_k, rule, to_doubles_of(choice.bias));
    const ops::Routed routed = route(logits, top_k, rule, choice);
    const Tolerance allowed = tolerance(logits.type());
    EXPECT_EQ(flat(routed.experts), expected.experts);
    expect_close(routed.scores, expected.scores.values, allowed, "scores");
    expect_close(routed.lse, expected.lse.values, allowed, "lse", /*typical=*/1);
    expect_close(routed.weights, expected.weights.values, allowed, "weights");
  }
  Values to_doubles_of(const View1<const float>& bias) const {
    Values values;
    for (const float value : to_host(exec_, bias)) values.push_back(static_cast<double>(value));
    return values;
  }
};

TEST_F(Route, AgreesWithPlainLoop) {
  for_each_variant([&](DType type, const RoutingCase& each, const RoutingVariant& variant) {
    expect_route(tensors_.random("l", type, each.tokens, each.experts), each.top_k, variant.rule,
                 choice_of(variant, each.experts));
  });
}

/// Logits, and so sigmoids, that are equal in any type.
TEST_F(Route, EqualValuesGoToTheLowestExpertAndGroup) {
  for_each_variant([&](DType type, const RoutingCase& each, const RoutingVariant& variant) {
    if (variant.bias) return;
    Values halves = random_values("l", each.tokens * each.experts);
    for (double& value : halves) value = std::round(2 * value) / 2;
    expect_route(tensors_.values(type, halves, each.tokens, each.experts), each.top_k,
                 variant.rule);
  });
  const AnyView equal = tensors_.values(DType::fp32, Values(10, -3), 2, 5);
  EXPECT_EQ(flat(route(equal, 3, false).experts), (std::vector<int>{0, 1, 2, 0, 1, 2}));
  const AnyView same = tensors_.values(DType::fp32, Values(8, 0.5), 1, 8);
  const ops::RouteRule in_groups{ops::ScoreFunction::sigmoid, false, 4, 2};
  EXPECT_EQ(flat(route(same, 3, in_groups).experts), (std::vector<int>{0, 1, 2}));
}

TEST_F(Route, ManyEqualValuesAmongManyExperts) {
  Values values(100, 1.0);
  values[40] = values[99] = 2;
  const AnyView logits = tensors_.values(DType::fp32, values, 1, 100);
  EXPECT_EQ(flat(route(logits, 4, false).experts), (std::vector<int>{0, 1, 40, 99}));
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
    Values logits;
    std::vector<int> experts;
  };
  const Case cases[] = {{{kNaN, 1, 3, 2}, {2, 3}},
                        {{1, kNaN, 3, 2}, {2, 3}},
                        {{3, 2, 1, kNaN}, {0, 1}},
                        {{kNaN, kNaN, 5, kNaN}, {0, 2}},
                        {{kNaN, kNaN, kNaN, kNaN}, {0, 1}}};
  for (const DType type : kAccumTypes) {
    for (const Case& each : cases) {
      for (const RoutingVariant& variant : routing_variants({1, 4, 2})) {
        SCOPED_TRACE(testing::PrintToString(each.logits) + " " + variant.name);
        const AnyView logits = tensors_.values(type, each.logits, 1, 4);
        const ops::Routed routed = route(logits, 2, variant.rule, choice_of(variant, 4));
        const std::vector<int> chosen = flat(routed.experts);
        const bool by_logits = variant.name == "post" || variant.name == "pre";
        EXPECT_TRUE(!(by_logits || variant.name == "sigmoid") || chosen == each.experts);
        EXPECT_TRUE(0 <= chosen[0] && chosen[0] < chosen[1] && chosen[1] < 4);
        for (const double weight : read(routed.weights).values) EXPECT_TRUE(std::isnan(weight));
        for (const double score : read(routed.scores).values) EXPECT_TRUE(std::isnan(score));
        EXPECT_TRUE(std::isnan(read(routed.lse)(0, 0)));
      }
    }
    const ops::Routed one =
        route(tensors_.values(type, {1, kNaN, 3}, 1, 3), 1, {ops::ScoreFunction::sigmoid});
    EXPECT_EQ(flat(one.experts), (std::vector<int>{2}));
    EXPECT_TRUE(std::isnan(read(one.weights)(0, 0)));
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

}  // namespace
}  // namespace konclave
