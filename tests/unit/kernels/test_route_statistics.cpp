#include "tests/unit/kernels/routing.hpp"

#include <cmath>
#include <tuple>

namespace konclave {
namespace {

class RouteStatistics : public RoutingTest {
 protected:
  Values all(const View2<double>& of) const {
    return to_host(exec_, View1<double>(of.data(), of.size()));
  }
  /// tokens of each sequence that have an expert in their row of `experts`.
  Values count(const std::vector<int>& experts, int top_k, const std::vector<int>& offsets,
               int num_experts) {
    Matrix counts = zeros(static_cast<std::int64_t>(offsets.size()) - 1, num_experts);
    for (int q = 0; q < counts.rows; ++q) {
      const auto at = static_cast<std::size_t>(q);
      for (int a = offsets[at] * top_k; a < offsets[at + 1] * top_k; ++a) {
        ++counts(q, experts[static_cast<std::size_t>(a)]);
      }
    }
    return counts.values;
  }
  void expect_statistics(const AnyView& logits, int top_k, const ops::RouteRule& rule,
                         const ops::RouteChoice& choice) {
    const auto tokens = static_cast<int>(logits.extent(0));
    const auto experts = static_cast<int>(logits.extent(1));
    const std::vector<int> offsets = window_offsets(tokens);
    const ops::RouteStatistics found =
        make_statistics(offsets, experts, top_k, ops::chooses_by_more_than_scores(rule, choice));
    const ops::Routed routed = make_routed(logits.type(), {tokens, experts, top_k});
    ops::route(exec_, logits, rule, choice, routed, found);
    const Matrix scores = read(routed.scores), lse = read(routed.lse);
    Matrix sums = zeros(3, experts);
    Values squares(3), entropy(3);
    std::vector<int> best;
    for (int q = 0; q < 3; ++q) {
      const auto at = static_cast<std::size_t>(q);
      for (int t = offsets[at]; t < offsets[at + 1]; ++t) {
        Values row;
        for (int e = 0; e < experts; ++e) {
          row.push_back(scores(t, e));
          sums(q, e) += row.back();
          entropy[at] -= row.back() * std::log(row.back());
        }
        squares[at] += lse(t, 0) * lse(t, 0);
        const std::vector<int> of_row = largest(row, top_k);
        best.insert(best.end(), of_row.begin(), of_row.end());
      }
    }
    EXPECT_EQ(all(found.counts), count(best, top_k, offsets, experts));
    EXPECT_EQ(all(found.chosen), count(flat(routed.experts), top_k, offsets, experts));
    EXPECT_TRUE(close(all(found.sums), sums.values, tolerance(DType::fp64)));
    EXPECT_TRUE(close(to_host(exec_, found.squares), squares, tolerance(DType::fp64)));
    EXPECT_TRUE(close(to_host(exec_, found.entropy), entropy, tolerance(logits.type())));
  }
};

TEST_F(RouteStatistics, AreSumsOverEachSequence) {
  for_each_variant([&](DType type, const RoutingCase& each, const RoutingVariant& variant) {
    expect_statistics(tensors_.random("l", type, each.tokens, each.experts), each.top_k,
                      variant.rule, choice_of(variant, each.experts));
  });
}

/// So long that sequences are summed in parts.
TEST_F(RouteStatistics, OfLongSequencesAreTheSame) {
  for (const int tokens : {1500, 2311}) {
    expect_statistics(tensors_.random("l", DType::fp64, tokens, 5), 2, {}, {});
  }
}

TEST_F(RouteStatistics, OfEqualScoresHaveTheEntropyOfAllExperts) {
  for (const auto score : {ops::ScoreFunction::softmax, ops::ScoreFunction::sigmoid}) {
    const ops::RouteStatistics found = make_statistics({0, 3}, 6);
    ops::route(exec_, tensors_.values(DType::fp32, Values(18, -2), 3, 6), {score}, {},
               make_routed(DType::fp32, {3, 6, 2}), found);
    EXPECT_NEAR(to_host(exec_, found.entropy)[0], 3 * std::log(6.0), 1e-5);
    EXPECT_EQ(all(found.counts), (Values{3, 3, 0, 0, 0, 0}));
  }
}

class RouteChoice : public RouteStatistics {
 protected:
  /// Four experts, of which the last two have the largest logits by far.
  AnyView logits(DType type) { return tensors_.values(type, {-100, -101, 100, 101}, 1, 4); }
};

TEST_F(RouteChoice, OfPreferencesIsByThemAlone) {
  for (const DType type : kAccumTypes) {
    ops::RouteChoice choice;
    choice.preferences = tensors_.values(type, {0.3, 0.4, 0.1, 0.2}, 1, 4);
    const ops::RouteStatistics found = make_statistics({0, 1}, 4, 2, true);
    const ops::Routed routed = make_routed(type, {1, 4, 2});
    ops::route(exec_, logits(type), {}, choice, routed, found);
    EXPECT_EQ(flat(routed.experts), (std::vector<int>{0, 1}));
    const double first = 1 / (1 + std::exp(-1.0));
    expect_close(routed.weights, {first, 1 - first}, tolerance(type), "weights of tiny scores");
    EXPECT_EQ(all(found.counts), (Values{0, 0, 1, 1}));
    EXPECT_EQ(all(found.chosen), (Values{1, 1, 0, 0}));
  }
}

TEST_F(RouteChoice, ThatIsGivenStays) {
  ops::RouteChoice choice;
  choice.given = true;
  for (const bool sigmoid : {false, true}) {
    const ops::RouteRule rule{sigmoid ? ops::ScoreFunction::sigmoid : ops::ScoreFunction::softmax};
    const ops::RouteStatistics found = make_statistics({0, 1}, 4, 2, true);
    ops::Routed routed = make_routed(DType::fp64, {1, 4, 2});
    routed.experts = integers2(1, 2);
    to_device(exec_, {1, 2}, View1<int>(routed.experts.data(), 2));
    ops::route(exec_, logits(DType::fp64), rule, choice, routed, found);
    EXPECT_EQ(flat(routed.experts), (std::vector<int>{1, 2}));
    EXPECT_NEAR(read(routed.weights)(0, 1), 1, 1e-12);
    EXPECT_EQ(all(found.counts), (Values{0, 0, 1, 1}));
    EXPECT_EQ(all(found.chosen), (Values{0, 1, 1, 0}));
  }
}

/// A bias larger than any score decides alone, and leaves weights as they are.
TEST_F(RouteChoice, ByABiasDoesNotChangeWeights) {
  const AnyView bias = tensors_.values(DType::fp32, {0, 3, 3, 0}, 1, 4);
  ops::RouteChoice choice;
  choice.bias = View1<const float>(static_cast<const float*>(bias.data()), 4);
  const AnyView logits = tensors_.values(DType::fp64, {2, 0, std::log(3.0), 1}, 1, 4);
  const ops::Routed routed = route(logits, 2, {ops::ScoreFunction::sigmoid}, choice);
  EXPECT_EQ(flat(routed.experts), (std::vector<int>{1, 2}));
  expect_close(routed.weights, {0.5 / 1.25, 0.75 / 1.25}, tolerance(DType::fp64), "weights");
}

TEST_F(RouteChoice, OfGroupsRefusesSizesThatDoNotFit) {
  const AnyView logits = tensors_.random("l", DType::fp32, 2, 8);
  for (const auto& [groups, of_groups, top_k] :
       {std::tuple(3, 1, 2), {4, 5, 8}, {4, 0, 2}, {4, 3, 2}, {4, 1, 3}}) {
    const ops::RouteRule rule{ops::ScoreFunction::softmax, false, groups, of_groups};
    EXPECT_THROW(route(logits, top_k, rule), Error) << groups << " " << of_groups;
  }
}

}  // namespace
}  // namespace konclave
