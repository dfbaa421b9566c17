#include "tests/mpi/moe_over_ranks.hpp"
#include "tests/mpi/training_over_ranks.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

/// Rows that travel to experts and back beside the work of these and of shared experts: the same
/// results as without.
namespace konclave {
namespace {

/// f(ranks) for each mapping whose experts are on several ranks.
template <typename F> void for_each_spread(F&& f) {
  for_each_moe_mapping([&](const AllRanks& all) {
    if (all.groups.etp_ep->size() > 1) f(all);
  });
}

/// Tensors by their names.
using Results = std::map<std::string, std::vector<double>>;

Results results_of(MoeOverRanks& layers) {
  layers.forward();
  layers.backward();
  const Moe& mine = *layers.mine;
  Results all{{"y", to_doubles(mine.exec, mine.y)},
              {"dx", to_doubles(mine.exec, mine.dx)},
              {"statistics", to_doubles(mine.exec, mine.sums)}};
  for (const auto& [name, parameter] : mine.parameters) all[name] = mine.gradient(name);
  EXPECT_EQ(layers.mine->scratch.mark().total, 0U) << "all scratch memory is given back";
  return all;
}

/// With and without overlap, whatever else the case wants: the same bits, but for sums that are
/// taken round by round.
void expect_equal(const AllRanks& all, MoeCase wanted, bool shared_again = false) {
  MoeOverRanks apart(all, wanted);
  wanted.overlap = true;
  MoeOverRanks beside(all, wanted);
  for (MoeOverRanks* layers : {&apart, &beside}) layers->mine->layer.repeat_shared(shared_again);
  const Results expected = results_of(apart);
  for (const auto& [name, values] : results_of(beside)) {
    const auto found = apart.mine->parameters.find(name);
    if (found != apart.mine->parameters.end() && found->second->spec().routed) {
      EXPECT_TRUE(close(values, expected.at(name), {1e-12, 1e-12}, 0.1)) << name;
    } else {
      EXPECT_EQ(values, expected.at(name)) << name;
    }
  }
}

TEST(OverlapEp, LayersGiveTheSameResults) {
  for_each_spread([](const AllRanks& all) {
    for (const int top_k : {1, 2, 12}) expect_equal(all, {.top_k = top_k});
    expect_equal(all, {.capacity = 0.8, .padded = true});
    expect_equal(all, {.top_k = 1, .logits = {{11, 50}}});
    for (const std::int64_t budget : {1, 2, 7, 24, 1000}) {
      SCOPED_TRACE(testing::Message() << "budget " << budget);
      expect_equal(all, {.budget = budget});
    }
    expect_equal(all, {.dispatcher = "allgather"});
  });
}

TEST(OverlapEp, ARankMayHaveNoTokensOrNoRows) {
  for_each_spread([](const AllRanks& all) {
    for (const std::int64_t budget : {0, 7}) {
      expect_equal(all, {.budget = budget, .windows = {0, 2}});
      expect_equal(all, {.budget = budget, .windows = {1}, .shares = {1, 0, 0, 0}});
      expect_equal(all, {.budget = budget, .windows = {0}});
      MoeCase wanted{.budget = budget};
      const int ep = all.groups.ep->size();
      for (int e = 12 - 12 / ep; e < 12; ++e) wanted.logits[e] = -50;
      if (ep > 1) expect_equal(all, wanted);
    }
    expect_equal(all, {.dispatcher = "allgather", .windows = {0, 2}});
  });
}

TEST(OverlapEp, SharedExpertsMakeTheSame) {
  for_each_spread([](const AllRanks& all) {
    if (kWindowTokens % (all.groups.tp->size() * all.groups.cp->size()) != 0) return;
    for (const char* dispatcher : {"alltoall", "allgather"}) {
      for (const bool gate : {false, true}) {
        for (const bool again : {false, true}) {
          SCOPED_TRACE(testing::Message()
                       << dispatcher << (gate ? ", a gate" : "") << (again ? ", made again" : ""));
          MoeCase wanted{.dispatcher = dispatcher, .windows = {2}, .shares = {1}};
          wanted.shared_ffn = 12;
          wanted.shared_gate = gate;
          expect_equal(all, wanted, again);
          if (wanted.dispatcher != "alltoall") continue;
          wanted.budget = 6;
          expect_equal(all, wanted, again);
          wanted.type = DType::bf16;
          wanted.budget = 0;
          MoeOverRanks apart(all, wanted);
          wanted.overlap = true;
          MoeOverRanks beside(all, wanted);
          apart.forward();
          beside.forward();
          EXPECT_TRUE(close(apart.mine->exec, beside.mine->y, apart.mine->y, {0, 0}))
              << "sums are rounded alike";
        }
      }
    }
  });
}

TEST(OverlapEp, IsTheLayerOfOneRank) {
  for_each_spread([](const AllRanks& all) {
    MoeOverRanks(all, {.top_k = 3, .overlap = true}).expect_same();
    MoeOverRanks(all, {.budget = 15, .top_k = 3, .overlap = true}).expect_same();
  });
}

/// Rounds are as many as there are enough rows for, of nearly the same size; under a budget two of
/// them keep to it, and without, or if all rows do, nothing is sent again.
TEST(OverlapEp, CutsRowsIntoRounds) {
  for_each_spread([](const AllRanks& all) {
    for (const std::int64_t budget : {0, 1, 9, 1000}) {
      SCOPED_TRACE(testing::Message() << "budget " << budget);
      MoeOverRanks layers(all, {.budget = budget, .overlap = true});
      layers.forward();
      const std::int64_t rows = layers.rows_here(layers.members({"etp", "ep"}));
      const std::int64_t most = all.groups.etp_ep->max(rows);
      const auto rounds = static_cast<std::int64_t>(layers.rounds().size());
      const bool kept = budget == 0 || most <= budget;
      const std::int64_t half = std::max<std::int64_t>(1, budget / 2);
      EXPECT_EQ(rounds, kept ? std::clamp<std::int64_t>(most / 8, 1, 4) : (most + half - 1) / half);
      EXPECT_EQ(layers.mine->saved.dispatch->kept(), kept);
      std::int64_t sum = 0;
      for (const Dispatch::Round& round : layers.rounds()) {
        EXPECT_GE(round.rows, rows / rounds);
        EXPECT_LE(round.rows, rows / rounds + 1);
        sum += round.rows;
      }
      EXPECT_EQ(sum, rows) << "nothing is dropped";
    }
  });
}

TEST(OverlapEp, OneRankAloneHasNothingToOverlap) {
  if (Communicator::world().size() > 1) return;
  const AllRanks all;
  MoeOverRanks layers(all, {.overlap = true});
  layers.expect_same();
  EXPECT_EQ(layers.rounds().size(), 1U);
  EXPECT_FALSE(layers.mine->saved.dispatch->overlaps());
}

/// The same once more wants no more memory.
TEST(OverlapEp, ASecondStepAllocatesNothing) {
  for_each_spread([](const AllRanks& all) {
    for (const std::int64_t budget : {0, 9}) {
      MoeOverRanks layers(all, {.budget = budget, .overlap = true});
      const auto step = [&] {
        layers.forward();
        layers.backward();
        layers.mine->activations.rewind({});
      };
      step();
      step();
      const std::int64_t peak = layers.mine->account.peak_total(),
                         held = layers.mine->account.current(MemoryClass::buffers);
      step();
      EXPECT_EQ(layers.mine->account.peak_total(), peak);
      EXPECT_EQ(layers.mine->account.current(MemoryClass::buffers), held);
    }
  });
}

/// Whole steps, with whatever is done again for backward.
TEST(OverlapEp, StepsComeToTheSame) {
  if (Communicator::world().size() == 1) GTEST_SKIP() << "one rank has nothing to send";
  ModelDefinition definition = tiny_model();
  MoeConfig& moe = definition.moe;
  moe.num_experts = 12;
  moe.ffn_hidden_size = 12;
  moe.shared_ffn_hidden_size = 12;
  moe.shared_gate = true;
  const int ranks = Communicator::world().size();
  const BatchForm form{4 * ranks, 2};
  const Outcome expected(Training(Groups::alone(), definition, form), 2);
  const std::vector<RecomputeConfig> recomputes = {
      {}, {"selective", {"moe"}}, {"selective", {"shared_experts", "layernorm"}}, {"full"}};
  for (const ParallelConfig& parallel : overlapping_spreads(Communicator::world().size())) {
    for (const RecomputeConfig& recompute : recomputes) {
      SCOPED_TRACE(testing::Message() << "etp " << parallel.etp << ", ep " << parallel.ep << ", "
                                      << recompute.granularity << " " << recompute.modules.front());
      const AllRanks all(parallel);
      Groups late = all.groups;
      const auto clock = std::make_shared<VirtualClock>();
      for (Groups::Group* group : {&late.etp, &late.ep}) {
        *group = std::make_shared<DelayedTransport>(*group, clock, Link{0, 1e6, true});
      }
      Training split(late, definition, form, parallel);
      split.runner->model().recompute(recompute);
      expect_same(split, expected);
    }
  }
}

}  // namespace
}  // namespace konclave
