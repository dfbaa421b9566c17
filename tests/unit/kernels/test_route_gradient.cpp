#include "ops/switch_loss.hpp"
#include "tests/unit/kernels/routing.hpp"

namespace konclave {
namespace {

constexpr double kZ = 0.02;

/// A row by the full Jacobians of its scores and weights: d f[i] / d l[j] as plain formulas.
class PlainRow {
 public:
  PlainRow(const Matrix& l, std::int64_t t, std::vector<int> chosen, const ops::RouteRule& rule)
      : chosen_(std::move(chosen)), rule_(rule) {
    for (std::int64_t e = 0; e < l.columns; ++e) {
      softmax_.push_back(std::exp(l(t, e)));
      sigmoid_.push_back(1 / (1 + std::exp(-l(t, e))));
      sum_ += softmax_.back();
      all_ += sigmoid_.back();
    }
    for (double& value : softmax_) value /= sum_;
    for (const int e : chosen_) {
      chosen_softmax_ += at(softmax_, e);
      chosen_sigmoid_ += at(sigmoid_, e);
    }
  }
  double lse() const { return std::log(sum_); }
  double softmax(int j) const { return at(softmax_, j); }
  double d_score(int e, int j) const {
    const double same = e == j ? 1 : 0;
    if (!is_sigmoid()) return at(softmax_, e) * (same - at(softmax_, j));
    return (same / all_ - at(sigmoid_, e) / (all_ * all_)) * d_sigmoid(j);
  }
  double d_weight(std::size_t k, int j) const {
    const int e = chosen_[k];
    const double same = e == j ? 1 : 0, factor = rule_.scaling_factor;
    const bool is_chosen = std::find(chosen_.begin(), chosen_.end(), j) != chosen_.end();
    if (!is_sigmoid() && rule_.pre_softmax) return factor * d_score(e, j);
    if (!is_chosen) return 0;
    if (!is_sigmoid()) {
      return factor * at(softmax_, e) / chosen_softmax_ *
             (same - at(softmax_, j) / chosen_softmax_);
    }
    if (chosen_.size() == 1) return factor * d_sigmoid(j);
    return factor * d_sigmoid(j) / chosen_sigmoid_ * (same - at(sigmoid_, e) / chosen_sigmoid_);
  }

 private:
  static double at(const Values& values, int e) { return values[static_cast<std::size_t>(e)]; }
  bool is_sigmoid() const { return rule_.score == ops::ScoreFunction::sigmoid; }
  double d_sigmoid(int j) const { return at(sigmoid_, j) * (1 - at(sigmoid_, j)); }

  std::vector<int> chosen_;
  ops::RouteRule rule_;
  Values softmax_, sigmoid_;
  double sum_ = 0, all_ = 0, chosen_softmax_ = 0, chosen_sigmoid_ = 0;
};

class RouteBackward : public RoutingTest {
 protected:
  struct Problem {
    AnyView logits;
    ops::RouteRule rule;
    ops::RouteChoice choice;
    ops::Routed routed;
    AnyView dweights, slope, dl;
    std::vector<int> offsets;
  };
  Problem problem(const AnyView& logits, int top_k, const RoutingVariant& variant) {
    const DType type = logits.type();
    const std::int64_t tokens = logits.extent(0), experts = logits.extent(1);
    const ops::RouteChoice choice = choice_of(variant, static_cast<int>(experts));
    return {logits,
            variant.rule,
            choice,
            route(logits, top_k, variant.rule, choice),
            tensors_.random("dweights", type, tokens, top_k),
            tensors_.random("slope", type, 3, experts),
            tensors_.poisoned(type, tokens, experts),
            window_offsets(static_cast<int>(tokens))};
  }
  void backward(const Problem& p) {
    const bool sigmoid = p.rule.score == ops::ScoreFunction::sigmoid;
    ops::route_backward(
        exec_,
        {sigmoid ? p.logits : p.routed.scores, p.routed.lse, p.routed.weights, p.dweights,
         p.routed.experts, tensors_.integers(p.offsets), p.slope, kZ, p.rule},
        p.dl);
  }
  Matrix plain_gradient(const Problem& p) const {
    const Matrix l = read(p.logits), dweights = read(p.dweights), slope = read(p.slope);
    const std::vector<int> experts = flat(p.routed.experts);
    Matrix dl = l;
    for (int q = 0; q < 3; ++q) {
      const auto at = static_cast<std::size_t>(q);
      for (int t = p.offsets[at]; t < p.offsets[at + 1]; ++t) {
        const auto first = experts.begin() + t * dweights.columns;
        const PlainRow row(l, t, {first, first + dweights.columns}, p.rule);
        for (int j = 0; j < l.columns; ++j) {
          dl(t, j) = 2 * kZ * row.lse() * row.softmax(j);
          for (int e = 0; e < l.columns; ++e) dl(t, j) += slope(q, e) * row.d_score(e, j);
          for (int k = 0; k < dweights.columns; ++k) {
            dl(t, j) += dweights(t, k) * row.d_weight(static_cast<std::size_t>(k), j);
          }
        }
      }
    }
    return dl;
  }
};

TEST_F(RouteBackward, AgreesWithPlainLoop) {
  for_each_variant([&](DType type, const RoutingCase& each, const RoutingVariant& variant) {
    if (each.tokens > 200) return;  // the plain loop takes E^2 steps for each token
    const Problem p =
        problem(tensors_.random("l", type, each.tokens, each.experts), each.top_k, variant);
    backward(p);
    expect_close(p.dl, plain_gradient(p).values, tolerance(type), "dl", /*typical=*/0.1);
  });
}

/// Sequences so long that they are worked on in parts.
TEST_F(RouteBackward, OfLongSequencesIsTheSame) {
  for (const RoutingVariant& variant : routing_variants({1700, 4, 2})) {
    SCOPED_TRACE(variant.name);
    const Problem p = problem(tensors_.random("l", DType::fp64, 1700, 4), 2, variant);
    backward(p);
    expect_close(p.dl, plain_gradient(p).values, tolerance(DType::fp64), "dl", /*typical=*/0.1);
  }
}

/// Objective: the weights times dweights, the switch loss of all windows and the z-loss.
TEST_F(RouteBackward, IsTheGradientOfAllThatHangsOnTheLogits) {
  constexpr double kCoefficient = 0.7, kScale = 0.4;
  for (const int top_k : {1, 2, 5, 8}) {
    for (const RoutingVariant& variant : routing_variants({7, 8, top_k})) {
      SCOPED_TRACE(testing::Message() << "K = " << top_k << ", " << variant.name);
      const AnyView logits = tensors_.random("l", DType::fp64, 7, 8);
      const Problem p = problem(logits, top_k, variant);
      const View1<double> losses = doubles(3);
      const ops::RouteStatistics found =
          make_statistics(p.offsets, 8, top_k, ops::chooses_by_more_than_scores(p.rule, p.choice));
      const auto objective = [&] {
        ops::route(exec_, logits, p.rule, p.choice, p.routed, found);
        ops::switch_loss(exec_, /*window_tokens=*/3, found.counts, found.sums, top_k, kCoefficient,
                         kScale, losses, p.slope);
        const std::vector<double> lse = read(p.routed.lse).values;
        return dot(read(p.routed.weights).values, read(p.dweights).values) +
               kScale * dot(to_host(exec_, losses), {1, 1, 1}) + kZ * dot(lse, lse);
      };
      objective();
      backward(p);
      expect_gradient(p.dl, logits, objective, "dl");
    }
  }
}

TEST_F(RouteBackward, OfLargeLogitsIsFinite) {
  for (const DType type : kAccumTypes) {
    for (const RoutingVariant& variant : routing_variants({2, 4, 2})) {
      SCOPED_TRACE(variant.name);
      const AnyView logits =
          tensors_.values(type, {-1e4, 1e4, -1e3, 1e4, -1e4, -1e4, -2e4, -1e4}, 2, 4);
      const Problem p = problem(logits, 2, variant);
      backward(p);
      for (const double value : read(p.dl).values) EXPECT_TRUE(std::isfinite(value));
    }
  }
}

}  // namespace
}  // namespace konclave
