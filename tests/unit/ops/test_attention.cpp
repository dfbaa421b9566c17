#include "ops/attention_rows.hpp"
#include "tests/support/central_differences.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/unit/ops/attention_problems.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

namespace konclave {
namespace {

using Attention = AttentionProblems;

TEST_F(Attention, EveryOfferAgreesWithReference) {
  for (const DType type : kTypes) compare_all(offers_, type);
}

/// Scores of the second query are 0 and ln 3, so that it weighs the values 1/4 and 3/4.
TEST_F(Attention, ReferenceIsRightByHand) {
  const AttentionShape shape{1, 1, 1, 1, 1.0, DType::fp64};
  const Rows rows = Rows().add({0, 1}, {0, 1});
  const Problem p = problem(shape, rows);
  const double ln3 = std::log(3.0);
  from_doubles(exec_, {1, 1}, p.q);
  from_doubles(exec_, {0, ln3}, p.k);
  from_doubles(exec_, {2, 6}, p.v);
  from_doubles(exec_, {1, 1}, p.d_o);

  forward(reference_, shape, p, 2);
  backward(reference_, shape, p, 2);

  const Tolerance exact = tolerance(DType::fp64);
  EXPECT_TRUE(close(to_doubles(exec_, p.o), {2, 5}, exact));
  EXPECT_TRUE(close(to_doubles(exec_, p.lse), {0, std::log(4.0)}, exact));
  EXPECT_TRUE(close(to_doubles(exec_, p.dq), {0, 0.75 * ln3}, exact));
  EXPECT_TRUE(close(to_doubles(exec_, p.dk), {-0.75, 0.75}, exact));
  EXPECT_TRUE(close(to_doubles(exec_, p.dv), {1.25, 0.75}, exact));
}

TEST_F(Attention, ReferenceGradientsAreThoseOfForward) {
  const AttentionShape shape{4, 2, 3, 2, 0.6, DType::fp64};
  const Rows rows = Rows().add(range(2, 5), range(0, 5)).add(range(0, 3), range(0, 3));
  const Problem p = problem(shape, rows);
  const std::vector<double> upstream = to_doubles(exec_, p.d_o);
  const auto gradient = [&](const AnyView& input) {
    const std::vector<double> values = to_doubles(exec_, input);
    const auto loss = [&](const std::vector<double>& at) {
      from_doubles(exec_, at, input);
      forward(reference_, shape, p, rows.longest());
      const std::vector<double> o = to_doubles(exec_, p.o);
      return std::inner_product(o.begin(), o.end(), upstream.begin(), 0.0);
    };
    std::vector<double> result = central_differences(loss, values);
    from_doubles(exec_, values, input);
    return result;
  };
  const std::vector<double> dq = gradient(p.q), dk = gradient(p.k), dv = gradient(p.v);

  forward(reference_, shape, p, rows.longest());
  backward(reference_, shape, p, rows.longest());

  EXPECT_TRUE(close(to_doubles(exec_, p.dq), dq, kDifferenceTolerance));
  EXPECT_TRUE(close(to_doubles(exec_, p.dk), dk, kDifferenceTolerance));
  EXPECT_TRUE(close(to_doubles(exec_, p.dv), dv, kDifferenceTolerance));
}

TEST_F(Attention, AQueryThatSeesNoKeyGivesZero) {
  const AttentionShape shape{1, 1, 2, 2, 1.0, DType::fp32};
  const Rows rows = Rows().add({0}, {1});
  for (const AttentionOffer& offer : offers_) {
    if (!offer.refuses(shape).empty()) continue;
    const Problem p = problem(shape, rows);
    forward(offer, shape, p, 1);
    backward(offer, shape, p, 1);
    EXPECT_EQ(to_doubles(exec_, p.o), (std::vector<double>{0, 0})) << offer.backend;
    EXPECT_EQ(to_doubles(exec_, p.lse), std::vector<double>{-HUGE_VAL}) << offer.backend;
    EXPECT_EQ(to_doubles(exec_, p.dq), (std::vector<double>{0, 0})) << offer.backend;
    EXPECT_EQ(to_doubles(exec_, p.dk), (std::vector<double>{0, 0})) << offer.backend;
  }
}

TEST_F(Attention, LargeScoresDoNotOverflow) {
  const AttentionShape shape{1, 1, 1, 1, 1.0, DType::fp32};
  for (const AttentionOffer& offer : offers_) {
    if (!offer.refuses(shape).empty()) continue;
    const Problem p = problem(shape, Rows().add({2}, {0, 1, 2}));
    from_doubles(exec_, {300}, p.q);
    from_doubles(exec_, {1, -10, 1}, p.k);
    from_doubles(exec_, {2, 100, 4}, p.v);
    forward(offer, shape, p, 3);
    EXPECT_TRUE(close(to_doubles(exec_, p.o), {3}, tolerance(DType::fp32))) << offer.backend;
    EXPECT_TRUE(close(to_doubles(exec_, p.lse), {300 + std::log(2.0)}, tolerance(DType::fp32)))
        << offer.backend;
  }
}

TEST_F(Attention, BackendsAcceptTheirTypes) {
  for (const DType type : kTypes) {
    const AttentionShape shape{2, 1, 4, 4, 0.5, type};
    expect_answer(offers_, "onednn", shape, kHostAccessible && type != DType::fp64);
    expect_answer(offers_, "kokkos_kernels", shape, type != DType::bf16);
    expect_answer(offers_, "reference", shape, true);
  }
}

TEST(AttentionPlan, CutsSequencesIntoBlocksOfQueries) {
  const auto plan = ops::plan_attention(std::vector{0, 5, 5, 7}, std::vector{0, 6, 8, 10},
                                        std::vector{1, 2, 3, 7, 8, 0, 4},
                                        std::vector{0, 1, 2, 3, 8, 9, 0, 1, 1, 2}, 2);
  ASSERT_EQ(plan.size(), 3U);
  ASSERT_EQ(plan[0].blocks.size(), 3U);
  EXPECT_EQ(plan[0].blocks[0].visible, 3);
  EXPECT_EQ(plan[0].blocks[1].q_begin, 2);
  EXPECT_EQ(plan[0].blocks[1].visible, 4);
  EXPECT_EQ(plan[0].blocks[2].q_count, 1);
  EXPECT_EQ(plan[0].visible(), 5);
  EXPECT_EQ(plan[1].k_count, 2);
  EXPECT_TRUE(plan[1].blocks.empty());
  EXPECT_EQ(plan[2].k_begin, 8);
  EXPECT_EQ(plan[2].blocks[0].q_begin, 5);
  EXPECT_EQ(plan[2].blocks[0].visible, 2);
}

TEST(AttentionPlan, RefusesPositionsThatDoNotAscend) {
  expect_error(
      [] {
        ops::plan_attention(std::vector{0, 2}, std::vector{0, 2}, std::vector{1, 0},
                            std::vector{0, 1}, 2);
      },
      ExitCode::internal, {"ascend"});
}

}  // namespace
}  // namespace konclave
