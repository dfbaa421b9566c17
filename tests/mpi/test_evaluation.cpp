#include "ops/backend_list.hpp"
#include "run/evaluation.hpp"
#include "tests/mpi/all_ranks.hpp"
#include "tests/unit/model/tiny_model.hpp"

#include <gtest/gtest.h>

#include <map>

namespace konclave {
namespace {

constexpr int kSequences = 9;

TokenTable sequences() {
  const HostMicroBatch all = tiny_batches(kSequences, kSequences).front();
  return TokenTable(all.tokens, all.labels, kLength);
}

std::unique_ptr<ModelRunner> make_runner(const Groups& groups) {
  ModelDefinition definition = tiny_model();
  definition.moe.num_experts = 12;
  return tiny_runner(definition, built_backends(), groups);
}

int ranks() { return Communicator::world().size(); }

TEST(Evaluate, GivesTheResultOfOneRank) {
  const TokenTable data = sequences();
  const auto alone = make_runner(Groups::alone());
  for (const int ep : ep_sizes(ranks())) {
    const AllRanks all(ep);
    const auto runner = make_runner(all.groups);
    // One to nine micro-batches: fewer than ranks, as many, and more.
    for (const int micro_size : {1, 2}) {
      for (const std::int64_t count : {1, 2, 3, 5, kSequences}) {
        SCOPED_TRACE(testing::Message() << count << " sequences in micro-batches of " << micro_size
                                        << ", ep " << ep << ", rank " << all.world.rank());
        const Evaluation expected = evaluate(*alone, data, count, micro_size);
        const Evaluation result = evaluate(*runner, data, count, micro_size);
        EXPECT_EQ(result.scored, expected.scored);
        EXPECT_GT(result.loss_sum, 0);
        if (ep == 1) {
          EXPECT_EQ(result.loss_sum, expected.loss_sum);
        } else {
          EXPECT_NEAR(result.loss_sum, expected.loss_sum, 1e-12 * expected.loss_sum);
        }
      }
    }
  }
}

TEST(Evaluate, HandsOutTheLogitsOfEachSequenceOnce) {
  const TokenTable data = sequences();
  const auto alone = make_runner(Groups::alone());
  std::map<std::int64_t, std::vector<double>> expected;
  evaluate(*alone, data, 5, 2, [&](std::int64_t first, const std::vector<double>& logits) {
    expected[first] = logits;
  });
  ASSERT_EQ(expected.size(), 3U);
  for (const int ep : ep_sizes(ranks())) {
    const AllRanks all(ep);
    const auto runner = make_runner(all.groups);
    std::vector<std::int64_t> calls(5);
    evaluate(*runner, data, 5, 2, [&](std::int64_t first, const std::vector<double>& logits) {
      ++calls[static_cast<std::size_t>(first)];
      ASSERT_EQ(logits.size(), expected[first].size());
      for (std::size_t i = 0; i < logits.size(); ++i) {
        EXPECT_NEAR(logits[i], expected[first][i], 1e-12);
      }
    });
    all.groups.world->sum(std::span(calls));
    EXPECT_EQ(calls, (std::vector<std::int64_t>{1, 0, 1, 0, 1})) << "ep " << ep;
  }
}

}  // namespace
}  // namespace konclave
