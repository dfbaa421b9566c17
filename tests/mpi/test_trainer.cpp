#include "parallel/shard.hpp"
#include "tests/mpi/all_ranks.hpp"
#include "tests/support/delayed_transport.hpp"
#include "tests/unit/model/tiny_model.hpp"
#include "tests/unit/model/workbench.hpp"

#include <cmath>
#include <map>

namespace konclave {
namespace {

constexpr int kSteps = 3;
constexpr int kSequences = 12;  // of a global batch: for 1, 2, 3 and 4 ranks

OptimizerConfig settings() {
  OptimizerConfig config;
  config.lr = 0.01;
  config.schedule = "constant";
  return config;
}

ModelDefinition model(std::int64_t receive_budget = 0) {
  ModelDefinition definition = tiny_model();
  definition.moe.num_experts = 12;
  definition.moe.receive_budget = receive_budget;
  return definition;
}

/// A part of a model that is trained on this rank.
struct Training {
  explicit Training(const Groups& groups, const ModelDefinition& definition = model(),
                    const std::string& grad_reduce = "ordered")
      : runner(tiny_runner(definition, built_backends(), groups)),
        trainer(*runner, settings(), 100, grad_reduce) {}

  /// Global batch number `number`, of which this rank takes a block of micro-batches.
  StepMetrics step(int number) {
    const std::vector<HostMicroBatch> all = tiny_batches(kSequences, 1, number);
    const Transport& dp = *runner->groups().dp;
    const std::ptrdiff_t share = kSequences / dp.size();
    const auto first = all.begin() + dp.rank() * share;
    return trainer.step(number, {first, first + share});
  }
  std::vector<StepMetrics> steps() {
    std::vector<StepMetrics> all;
    for (int number = 1; number <= kSteps; ++number) all.push_back(step(number));
    return all;
  }

  std::unique_ptr<ModelRunner> runner;
  Trainer trainer;
};

std::map<std::string, std::vector<double>> weights(Training& training) {
  std::map<std::string, std::vector<double>> all;
  training.runner->model().visit_parameters([&](const Parameter& parameter) {
    all[parameter.name()] = to_doubles(training.runner->exec(), parameter.value());
  });
  return all;
}

/// What a rank holds of values of the whole model.
std::vector<double> part_of(const std::vector<double>& whole, const Parameter& parameter) {
  std::vector<double> part;
  for (const ShardRun& run : shard_runs(parameter.spec().shape, parameter.shard())) {
    const auto first = whole.begin() + run.in_whole;
    part.insert(part.end(), first, first + run.count);
  }
  return part;
}

void expect_near(const std::vector<StepMetrics>& actual, const std::vector<StepMetrics>& expected,
                 double bound) {
  for (std::size_t i = 0; i < expected.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "step " << i + 1);
    EXPECT_NEAR(actual[i].loss, expected[i].loss, bound);
    EXPECT_NEAR(actual[i].grad_norm, expected[i].grad_norm, bound);
    EXPECT_NEAR(actual[i].aux_loss, expected[i].aux_loss, bound);
    EXPECT_NEAR(actual[i].z_loss, expected[i].z_loss, bound);
    EXPECT_NEAR(actual[i].load_imbalance, expected[i].load_imbalance, bound);
    EXPECT_EQ(actual[i].tokens, expected[i].tokens);
    EXPECT_TRUE(actual[i].finite);
  }
}

/// Metrics and weights of a training over all ranks against those of one rank.
void expect_same(Training& split, Training& whole, const std::vector<StepMetrics>& expected) {
  expect_near(split.steps(), expected, 1e-9);
  auto all = weights(whole), mine = weights(split);
  split.runner->model().visit_parameters([&](const Parameter& parameter) {
    const std::string& name = parameter.name();
    EXPECT_TRUE(close(mine[name], part_of(all[name], parameter), {1e-9, 1e-9})) << name;
  });
}

int ranks() { return Communicator::world().size(); }

TEST(TrainerOverRanks, IsTheTrainerOfOneRank) {
  Training whole(Groups::alone());
  const std::vector<StepMetrics> expected = whole.steps();
  EXPECT_GT(std::abs(expected[0].loss - expected[1].loss), 1e-3);
  EXPECT_GT(expected[0].aux_loss, 0.05);
  EXPECT_GT(expected[0].z_loss, 0);
  EXPECT_GT(expected[0].load_imbalance, 1);
  for (const int ep : ep_sizes(ranks())) {
    for (const char* order : {"tp-cp-ep-dp-pp", "dp-ep"}) {
      for (const char* grad_reduce : {"ordered", "library"}) {
        SCOPED_TRACE(testing::Message() << "ep " << ep << ", " << order << ", " << grad_reduce);
        const AllRanks all(ep, order);
        Training split(all.groups, model(), grad_reduce);
        expect_same(split, whole, expected);
      }
    }
    SCOPED_TRACE(testing::Message() << "ep " << ep << ", a budget of 3 rows");
    const AllRanks all(ep);
    Training split(all.groups, model(/*receive_budget=*/3));
    expect_same(split, whole, expected);
  }
}

/// Every group but that of the world sends its messages with a delay.
Groups delayed(const Groups& groups, const std::shared_ptr<VirtualClock>& clock) {
  const auto delay = [&](const std::shared_ptr<const Transport>& group) {
    return std::make_shared<DelayedTransport>(group, clock, Link{1e-5, 1e9});
  };
  Groups late = groups;
  for (Groups::Group* group :
       {&late.tp, &late.cp, &late.dp, &late.pp, &late.tp_cp, &late.dp_cp, &late.tp_dp_cp, &late.etp,
        &late.ep, &late.etp_ep, &late.expert_dp}) {
    *group = delay(*group);
  }
  return late;
}

TEST(TrainerOverRanks, ReadsNothingBeforeItHasArrived) {
  for (const int ep : ep_sizes(ranks())) {
    for (const std::int64_t budget : {0, 3}) {
      for (const char* grad_reduce : {"ordered", "library"}) {
        SCOPED_TRACE(testing::Message() << "ep " << ep << ", budget " << budget);
        const AllRanks all(ep);
        const auto clock = std::make_shared<VirtualClock>();
        Training direct(all.groups, model(budget), grad_reduce);
        Training late(delayed(all.groups, clock), model(budget), grad_reduce);
        const bool in_order = std::string(grad_reduce) == "ordered";
        expect_near(late.steps(), direct.steps(), in_order ? 0 : 1e-12);
        if (in_order) {
          EXPECT_EQ(weights(late), weights(direct));
        }
        EXPECT_GT(clock->now(), 0);
      }
    }
  }
}

TEST(SumInOrder, AddsTheNumbersOfAllRanksFromTheFirstOn) {
  // Rounding makes the sum depend on its order.
  const auto number = [](int i) { return std::pow(-1e5, i % 5) + 1.0 / (i + 3); };
  const AllRanks all;
  const int rank = all.world.rank();
  const std::vector<double> mine = {number(3 * rank), number(3 * rank + 1), number(3 * rank + 2)};
  double expected = 0;
  for (int i = 0; i < 3 * all.world.size(); ++i) expected += number(i);
  EXPECT_EQ(sum_in_order(*all.groups.dp, mine), expected);
  EXPECT_EQ(sum_in_order(*all.groups.dp, {}), 0);
}

}  // namespace
}  // namespace konclave
