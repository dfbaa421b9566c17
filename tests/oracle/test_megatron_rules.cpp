// Score functions, groups, bias and scaling of megatron-core's router (make_megatron.py).

#include "ops/router.hpp"
#include "ops/switch_loss.hpp"
#include "tensor/compare.hpp"
#include "tests/support/tensors.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>

namespace konclave {
namespace {

using Matrix = std::vector<std::vector<double>>;

std::vector<double> flat(const nlohmann::json& rows) {
  std::vector<double> all;
  for (const auto& row : rows.get<Matrix>()) all.insert(all.end(), row.begin(), row.end());
  return all;
}

/// The router computes in fp32 there and here.
constexpr double kTolerance = 2e-6;

class MegatronRules : public testing::Test {
 protected:
  struct Problem {
    AnyView logits;
    ops::Routed routed;
    ops::RouteStatistics statistics;
  };

  MegatronRules() {
    std::ifstream file(std::filesystem::path(KONCLAVE_SOURCE_DIR) /
                       "tests/oracle/data/megatron/rules.json");
    facts_ = nlohmann::json::parse(file);
  }
  AnyView matrix(const nlohmann::json& rows) {
    const auto count = static_cast<std::int64_t>(rows.size());
    return memory_.values(DType::fp32, flat(rows), count, rows.at(0).size());
  }
  View2<int> integers(std::int64_t rows, std::int64_t columns) {
    void* const data = memory_.poisoned(DType::fp32, rows, columns).data();
    return View2<int>(static_cast<int*>(data), static_cast<std::size_t>(rows),
                      static_cast<std::size_t>(columns));
  }
  Problem route(const nlohmann::json& inputs, int top_k, const ops::RouteRule& rule,
                const ops::RouteChoice& choice) {
    Problem p{matrix(inputs.at("logits")), {}, {}};
    const std::int64_t tokens = p.logits.extent(0), experts = p.logits.extent(1);
    const auto table = [&] { return memory_.poisoned(DType::fp64, 1, experts).as2<double>(); };
    const auto doubles = [&](std::int64_t size) {
      return memory_.poisoned(DType::fp64, size).as1<double>();
    };
    p.routed = {memory_.poisoned(DType::fp32, tokens, experts),
                memory_.poisoned(DType::fp32, tokens), integers(tokens, top_k),
                memory_.poisoned(DType::fp32, tokens, top_k)};
    p.statistics = {memory_.integers({0, static_cast<int>(tokens)}),
                    table(),
                    table(),
                    table(),
                    doubles(1),
                    doubles(1),
                    doubles(ops::route_scratch(tokens, 1, static_cast<int>(experts))),
                    {}};
    if (ops::chooses_by_more_than_scores(rule, choice)) {
      p.statistics.largest = integers(tokens, top_k);
    }
    ops::route(exec_, p.logits, rule, choice, p.routed, p.statistics);
    return p;
  }
  std::vector<double> gradient(const Problem& p, const ops::RouteRule& rule, const AnyIn& dweights,
                               const AnyIn& slope) {
    const AnyView dl = memory_.poisoned(DType::fp32, p.logits.extent(0), p.logits.extent(1));
    const bool sigmoid = rule.score == ops::ScoreFunction::sigmoid;
    ops::route_backward(
        exec_,
        {sigmoid ? p.logits : p.routed.scores, p.routed.lse, p.routed.weights, dweights,
         p.routed.experts, p.statistics.offsets, slope, /*z_scale=*/0, rule},
        dl);
    return to_doubles(exec_, dl);
  }
  AnyView zeros(std::int64_t rows, std::int64_t columns) {
    const std::vector<double> none(static_cast<std::size_t>(rows * columns), 0.0);
    return memory_.values(DType::fp32, none, rows, columns);
  }

  ExecSpace exec_;
  Tensors memory_{exec_};
  nlohmann::json facts_;
};

TEST_F(MegatronRules, ChoicesWeightsAndGradients) {
  for (const nlohmann::json& one : facts_.at("rules")) {
    SCOPED_TRACE(one.at("score_function").get<std::string>() + ", top_k " + one.at("top_k").dump() +
                 ", groups " + one.at("num_groups").dump() + ", bias " + one.at("bias").dump());
    const nlohmann::json& inputs = facts_.at(one.at("inputs").get<std::string>());
    const int top_k = one.at("top_k");
    const bool sigmoid = one.at("score_function") == "sigmoid";
    const ops::RouteRule rule{sigmoid ? ops::ScoreFunction::sigmoid : ops::ScoreFunction::softmax,
                              one.at("pre_softmax"), one.at("num_groups"), one.at("group_top_k"),
                              one.at("scaling_factor")};
    ops::RouteChoice choice;
    if (one.at("bias"))
      choice.bias = matrix(nlohmann::json::array({inputs.at("bias")})).flat<float>();

    const Problem p = route(inputs, top_k, rule, choice);

    const View1<int> chosen(p.routed.experts.data(), p.routed.experts.size());
    std::vector<double> experts, upstream;
    for (const int expert : to_host(exec_, chosen)) experts.push_back(expert);
    EXPECT_EQ(experts, flat(one.at("experts")));
    EXPECT_LT(difference(to_doubles(exec_, p.routed.weights), flat(one.at("probs"))).max_absolute,
              kTolerance);
    const std::vector<double> all = flat(inputs.at("grad_probs"));
    const auto columns = static_cast<std::size_t>(p.logits.extent(1));
    for (std::size_t a = 0; a < experts.size(); ++a) {
      const std::size_t t = a / static_cast<std::size_t>(top_k);
      upstream.push_back(all[t * columns + static_cast<std::size_t>(experts[a])]);
    }
    const auto dl =
        gradient(p, rule, memory_.values(DType::fp32, upstream, p.logits.extent(0), top_k),
                 zeros(1, p.logits.extent(1)));
    EXPECT_LT(difference(dl, flat(one.at("grad_logits"))).max_absolute, kTolerance);
  }
}

TEST_F(MegatronRules, AuxiliaryLossOfSigmoids) {
  const ops::RouteRule rule{ops::ScoreFunction::sigmoid};
  for (const nlohmann::json& one : facts_.at("aux_loss")) {
    const int top_k = one.at("top_k");
    SCOPED_TRACE("top_k " + std::to_string(top_k));
    const Problem p = route(facts_.at("small"), top_k, rule, {});
    const std::int64_t tokens = p.logits.extent(0), experts = p.logits.extent(1);
    const auto loss = memory_.poisoned(DType::fp64, 1).as1<double>();
    const AnyView slope = memory_.poisoned(DType::fp32, 1, experts);

    ops::switch_loss(exec_, tokens, p.statistics.counts, p.statistics.sums, top_k,
                     one.at("coefficient"), /*scale=*/1, loss, slope);

    const View1<double> counts(p.statistics.counts.data(), p.statistics.counts.size());
    EXPECT_EQ(to_host(exec_, counts), one.at("tokens_per_expert").get<std::vector<double>>());
    EXPECT_NEAR(to_host(exec_, loss)[0], one.at("loss").get<double>(), 1e-7);
    const auto dl = gradient(p, rule, zeros(tokens, top_k), slope);
    EXPECT_LT(difference(dl, flat(one.at("grad_logits"))).relative_norm, 1e-5);
  }
}

}  // namespace
}  // namespace konclave
