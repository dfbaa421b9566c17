#include "moe/all_to_all_dispatch.hpp"
#include "tests/mpi/moe_over_ranks.hpp"
#include "tests/support/expect_error.hpp"

namespace konclave {
namespace {

/// A case by both dispatchers, in one round and in several.
void expect_same_by_all_ways(const AllRanks& all, MoeCase wanted) {
  for (const std::int64_t budget : {0, 5 * wanted.top_k, 1000}) {
    SCOPED_TRACE(testing::Message() << "budget " << budget);
    wanted.budget = budget;
    MoeOverRanks(all, wanted).expect_same();
  }
  SCOPED_TRACE("allgather");
  wanted.budget = 0;
  wanted.dispatcher = "allgather";
  MoeOverRanks(all, wanted).expect_same();
}

TEST(MoeLayerOverRanks, IsTheLayerOfOneRank) {
  for_each_moe_mapping([](const AllRanks& all) {
    expect_same_by_all_ways(all, {});
    expect_same_by_all_ways(all, {.top_k = 1});
    expect_same_by_all_ways(all, {.top_k = 12});
  });
}

/// Ranks of etp need not be neighbours, and where they are in a group etp x ep does not matter.
TEST(MoeLayerOverRanks, IsTheSameInOtherOrdersOfRanks) {
  for (ParallelConfig parallel : moe_mappings(Communicator::world().size())) {
    for (const char* order : {"ep-tp-cp-dp-pp", "dp-ep-cp-tp-pp"}) {
      SCOPED_TRACE(order);
      parallel.order = order;
      const AllRanks all(parallel);
      MoeOverRanks(all, {.budget = 10}).expect_same();
      MoeOverRanks(all, {.dispatcher = "allgather"}).expect_same();
    }
  }
}

/// In bf16 each rank rounds its part of a sum over etp, or over the experts of a token.
TEST(MoeLayerOverRanks, IsCloseInOtherTypes) {
  for_each_moe_mapping([](const AllRanks& all) {
    for (const char* dispatcher : {"alltoall", "allgather"}) {
      const Tolerance rounded{2 * tolerance(DType::bf16).norm, 4 * tolerance(DType::bf16).element};
      MoeOverRanks(all, {.dispatcher = dispatcher, .type = DType::bf16}).expect_close(rounded);
      MoeOverRanks(all, {.dispatcher = dispatcher, .type = DType::fp32})
          .expect_close(tolerance(DType::fp32));
    }
  });
}

TEST(MoeLayerOverRanks, OtherRulesOfTheRouter) {
  for_each_moe_mapping([](const AllRanks& all) {
    expect_same_by_all_ways(all, {.top_k = 3, .sigmoid_in_groups = true});
    MoeOverRanks(all, {.type = DType::fp32, .router_dtype = "fp64"})
        .expect_close(tolerance(DType::fp32));
  });
}

TEST(MoeLayerOverRanks, EveryKindOfBalance) {
  for_each_moe_mapping([](const AllRanks& all) {
    expect_same_by_all_ways(all, {.balancing = {"seq_aux_loss", "global_aux_loss", "aux_loss"},
                                  .coefficients = {0.3, 0.2, 0.1}});
    expect_same_by_all_ways(all, {.balancing = {"global_aux_loss", "aux_loss"},
                                  .coefficients = {0.4, 0.1},
                                  .global_counts = "running"});
    expect_same_by_all_ways(all, {.balancing = {"sinkhorn"}, .coefficients = {}});
    expect_same_by_all_ways(all, {.top_k = 1, .balancing = {"sinkhorn"}, .coefficients = {}});
  });
}

/// Which tokens an expert drops is known from the whole window, on whichever ranks it is.
TEST(MoeLayerOverRanks, SameTokensAreDropped) {
  for_each_moe_mapping([](const AllRanks& all) {
    for (const char* policy : {"probs", "position"}) {
      for (const bool padded : {false, true}) {
        SCOPED_TRACE(testing::Message() << policy << (padded ? ", padded" : ""));
        expect_same_by_all_ways(all, {.capacity = 0.8, .padded = padded, .policy = policy});
      }
    }
  });
}

TEST(MoeLayerOverRanks, ATokensNoiseIsTheSameOnEveryRank) {
  for_each_moe_mapping([](const AllRanks& all) {
    expect_same_by_all_ways(all, {.jitter = 0.5});
    expect_same_by_all_ways(all, {.forced = true});
  });
}

TEST(MoeLayerOverRanks, SharedExpertsGoAlong) {
  for_each_moe_mapping([](const AllRanks& all) {
    if (kWindowTokens % (all.groups.tp->size() * all.groups.cp->size()) != 0) return;
    expect_same_by_all_ways(all, {.windows = {2}, .shares = {1}, .shared_ffn = 12});
  });
}

/// Many small experts, of which each token goes to several.
TEST(MoeLayerOverRanks, FineGrainedExperts) {
  constexpr int kExperts = 144;
  for_each_moe_mapping(
      [](const AllRanks& all) {
        if (kWindowTokens % (all.groups.tp->size() * all.groups.cp->size()) != 0) return;
        expect_same_by_all_ways(
            all,
            {.experts = kExperts, .top_k = 8, .windows = {2}, .shares = {1}, .shared_ffn = 12});
      },
      kExperts);
}

TEST(MoeLayerOverRanks, ARankMayHaveNoTokens) {
  for_each_moe_mapping([](const AllRanks& all) {
    expect_same_by_all_ways(all, {.windows = {0, 2}});
    expect_same_by_all_ways(all, {.windows = {2, 0, 1}, .shares = {0, 1}});
    expect_same_by_all_ways(all, {.windows = {1}, .shares = {1, 0, 0, 0}});
    expect_same_by_all_ways(all, {.windows = {0}});
    MoeOverRanks(all, {.windows = {0, 2},
                       .balancing = {"global_aux_loss"},
                       .coefficients = {0.4},
                       .global_counts = "running"})
        .expect_same();
  });
}

TEST(MoeLayerOverRanks, RowsMayComeOneByOne) {
  for_each_moe_mapping(
      [](const AllRanks& all) { MoeOverRanks(all, {.budget = 1, .windows = {1}}).expect_same(); });
}

TEST(MoeLayerOverRanks, AllTokensMayGoToOneExpert) {
  for_each_moe_mapping([](const AllRanks& all) {
    expect_same_by_all_ways(all, {.top_k = 1, .logits = {{11, 50}}});
  });
}

/// Whether all elements of a gradient are 0.
bool is_zero(const ExecSpace& exec, const AnyView& gradient) {
  const std::vector<double> values = to_doubles(exec, gradient);
  return std::all_of(values.begin(), values.end(), [](double value) { return value == 0; });
}

TEST(MoeLayerOverRanks, AnExpertWithoutTokensHasAGradientOfZeros) {
  for_each_moe_mapping([](const AllRanks& all) {
    for (const char* dispatcher : {"alltoall", "allgather"}) {
      MoeOverRanks layers(all, {.dispatcher = dispatcher, .logits = {{1, -50}}});
      layers.expect_same();
      if (layers.ep_rank() != 1 / layers.local()) continue;
      for (const auto& [name, parameter] : layers.mine->parameters) {
        if (!parameter->spec().routed) continue;
        EXPECT_TRUE(is_zero(layers.mine->exec, parameter->grad().slice(1 % layers.local(), 1)))
            << name;
      }
    }
  });
}

TEST(MoeLayerOverRanks, ARankWhoseExpertsGetNothingHasGradientsOfZeros) {
  for_each_moe_mapping([](const AllRanks& all) {
    const int ep = all.groups.ep->size();
    if (ep == 1) return;
    for (const char* dispatcher : {"alltoall", "allgather"}) {
      MoeCase wanted{.dispatcher = dispatcher};
      for (int e = 12 - 12 / ep; e < 12; ++e) wanted.logits[e] = -50;
      MoeOverRanks layers(all, wanted);
      layers.expect_same();
      if (layers.ep_rank() != ep - 1) continue;
      EXPECT_EQ(layers.rounds().front().rows, 0);
      for (const auto& [name, parameter] : layers.mine->parameters) {
        if (!parameter->spec().routed) continue;
        EXPECT_TRUE(is_zero(layers.mine->exec, parameter->grad())) << name;
      }
    }
  });
}

/// No row of an own expert goes through a buffer when there is one round, and the others come to
/// their places: nothing but the rows for others is ever written beside them.
TEST(MoeLayerOverRanks, OwnRowsStayWhereTheyAre) {
  for_each_moe_mapping([](const AllRanks& all) {
    const int ep = all.groups.ep->size(), rank = all.groups.ep->rank();
    for (const std::int64_t budget : {0, 7}) {
      MoeOverRanks layers(all, {.budget = budget});
      layers.forward();
      const bool stay = ep == 1 || layers.rounds().size() == 1;
      const auto& dispatch = dynamic_cast<const AllToAllDispatch&>(*layers.mine->saved.dispatch);
      for (std::size_t round = 0; round < layers.rounds().size(); ++round) {
        const DispatchRound& leg = dispatch.leg(round);
        EXPECT_EQ(leg.own_stays, stay);
        if (ep == 1) continue;
        const std::int64_t own = rows_of(leg.home[static_cast<std::size_t>(rank)]);
        EXPECT_EQ(leg.sent, rows_of(leg.home) - (stay ? own : 0));
      }
      for (const TransportCall& call : layers.log) {
        if (call.group != "ep" || call.collective != "all_to_all") continue;
        const auto me = static_cast<std::size_t>(rank);
        EXPECT_EQ(call.rows_to[me], stay ? 0 : call.rows_from[me]);
      }
    }
  });
}

/// With experts that are the identity and weights that sum to 1 a token comes back as it went;
/// parts of the identity on each rank of etp add up.
TEST(MoeDispatch, BringsTokensBackWhenExpertsAreTheIdentity) {
  for_each_moe_mapping([](const AllRanks& all) {
    for (const char* dispatcher : {"alltoall", "allgather"}) {
      constexpr int kTopK = 3;
      MoeOverRanks layers(all, {.dispatcher = dispatcher, .top_k = kTopK});
      layers.forward();
      Moe& moe = *layers.mine;
      const Dispatch& dispatch = *moe.saved.dispatch;
      const AnyView x = moe.tensors.random("own x", DType::fp64, layers.my_tokens(), kMoeHidden);
      const AnyView y = moe.tensors.poisoned(DType::fp64, layers.my_tokens(), kMoeHidden);
      const std::int64_t rows = dispatch.rounds().front().rows;
      const AnyView returned = dispatch.returned_rows(moe.context(), y);
      const AnyView returned_values = dispatch.returned_values(moe.context(), DType::fp64);
      const auto back_home = dispatch.way_back(moe.context(), {returned, returned_values});
      const AnyView &results = back_home->rows(0), &values = back_home->values(0);
      EXPECT_EQ(results.extent(0), rows);
      const auto there = dispatch.way_there(
          moe.context(), {{x, {results}}, {moe.saved.routing.weights, {values}}});
      there->arrive(moe.context(), 0);
      std::vector<double> part = to_doubles(moe.exec, results);
      for (double& value : part) value /= kTopK * all.groups.etp->size();
      from_doubles(moe.exec, part, results);
      back_home->give(moe.context(), 0);
      back_home->finish(moe.context());
      const AnyView back =
          dispatch.combine_with_values(moe.context(), returned, returned_values, y);
      EXPECT_TRUE(close(moe.exec, y, x, tolerance(DType::fp64))) << dispatcher;
      std::vector<double> weights = to_doubles(moe.exec, moe.saved.routing.weights);
      for (double& weight : weights) weight *= all.groups.etp->size();
      EXPECT_TRUE(close(to_doubles(moe.exec, back), weights, tolerance(DType::fp64)));
    }
  });
}

TEST(MoeLayerOverRanks, RefusesWhatDoesNotFit) {
  const auto build = [](const MoeCase& wanted, const Groups& groups) {
    Workbench bench;
    const MoeLayer layer("moe", 0, moe_config(wanted), groups, bench.storage());
  };
  expect_error([&] { build({.dispatcher = "allgather", .budget = 5}, Groups::alone()); },
               ExitCode::internal, {"moe.receive_budget", "allgather"});
  expect_error([&] { build({.dispatcher = "flex"}, Groups::alone()); }, ExitCode::internal,
               {"flex"});
  ParallelConfig parallel;
  parallel.tp = Communicator::world().size();
  if (parallel.tp == 1) return;
  const AllRanks all(parallel);
  expect_error([&] { build({}, all.groups); }, ExitCode::internal, {"parallel.sp"});
}

}  // namespace
}  // namespace konclave
