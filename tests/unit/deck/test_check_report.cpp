#include "deck/check_report.hpp"
#include "deck/rank_map.hpp"
#include "deck/rank_rules.hpp"
#include "small_deck.hpp"
#include "tests/support/expect_error.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace konclave {
namespace {

ModelDefinition definition(const std::string& deck) {
  return read_deck_text(deck, "model.toml", {}, DeckUse::model).definition;
}

// Published sizes of well-known models.
TEST(CountParameters, AgreesWithMixtral8x7B) {
  const ParameterCount count = count_parameters(definition(
      "[model]\nvocab_size = 32000\nsequence_length = 4096\nhidden_size = 4096\nnum_layers = 32\n"
      "num_heads = 32\nnum_kv_heads = 8\n[moe]\nnum_experts = 8\nffn_hidden_size = 14336\n"));
  EXPECT_EQ(count.total, 46'702'792'704);
  EXPECT_EQ(count.active, 12'879'925'248);
}

TEST(CountParameters, AgreesWithLlama3Of8B) {
  const ParameterCount count = count_parameters(definition(
      "[model]\nvocab_size = 128256\nsequence_length = 8192\nhidden_size = 4096\nnum_layers = 32\n"
      "num_heads = 32\nnum_kv_heads = 8\nffn_hidden_size = 14336\n"));
  EXPECT_EQ(count.total, 8'030'261'248);
  EXPECT_EQ(count.active, count.total);
}

TEST(CountParameters, AgreesWithQwen3Of30B) {
  const ParameterCount count = count_parameters(definition(
      "[model]\nvocab_size = 151936\nsequence_length = 4096\nhidden_size = 2048\nnum_layers = 48\n"
      "num_heads = 32\nnum_kv_heads = 4\nhead_dim = 128\nqk_norm = true\n"
      "[moe]\nnum_experts = 128\ntop_k = 8\nffn_hidden_size = 768\n"));
  EXPECT_EQ(count.total, 30'532'122'624);
}

TEST(CountParameters, AgreesWithQwen2Of500M) {
  const ParameterCount count = count_parameters(definition(
      "[model]\nvocab_size = 151936\nsequence_length = 4096\nhidden_size = 896\nnum_layers = 24\n"
      "num_heads = 14\nnum_kv_heads = 2\nffn_hidden_size = 4864\nqkv_bias = true\n"
      "tie_embeddings = true\n"));
  EXPECT_EQ(count.total, 494'032'768);
}

TEST(CountStateBytes, FollowsTheTypes) {
  OptimizerConfig narrow;
  narrow.moments = "bf16";
  EXPECT_EQ(count_state_bytes(10, 10, DType::bf16).total(), 10 * (2 + 4 + 4 + 8));
  EXPECT_EQ(count_state_bytes(10, 10, DType::fp32).total(), 10 * (4 + 4 + 8));
  EXPECT_EQ(count_state_bytes(10, 10, DType::fp64).total(), 10 * (8 + 8 + 16));
  EXPECT_EQ(count_state_bytes(10, 3, DType::bf16).total(), 10 * (2 + 4) + 3 * (4 + 8));
  EXPECT_EQ(count_state_bytes(10, 3, DType::bf16, narrow).total(), 10 * (2 + 4) + 3 * (4 + 4));
  EXPECT_EQ(count_state_bytes(10, 10, DType::bf16).weights, 20);
  EXPECT_EQ(count_state_bytes(10, 10, DType::bf16).master_weights, 40);
  EXPECT_EQ(count_state_bytes(10, 10, DType::fp32).master_weights, 0);
}

TEST(CheckReport, IsTheEffectiveDeckWithWhatFollowsFromIt) {
  const Deck deck = read_small({"model.num_layers=4", "moe.layer_frequency=2",
                                "model.ffn_hidden_size=64", "batch.micro_size=2"});

  const std::string report = check_report(deck, 1);

  EXPECT_TRUE(report.starts_with(effective_deck(deck)));
  EXPECT_SAYS(report, "MoE layers              2 of 4: 0 2\n");
  EXPECT_SAYS(report, "tokens per step         128\n");
  EXPECT_SAYS(report, "tokens in all           2,560\n");
  EXPECT_SAYS(report, "micro-batches per step  2\n");
  EXPECT_SAYS(report, "\n# On one rank\n");
  EXPECT_SAYS(report, "tp, cp, dp, pp          1, 1, 1, 1\n");
  EXPECT_SAYS(report, "etp, ep, edp, pp        1, 1, 1, 1\n");
  EXPECT_SAYS(report, "master weights");
  EXPECT_EQ(effective_deck(read_deck_text(report, "report.toml")).empty(), false)
      << "the report is a deck";
}

/// The small deck: 4 experts of 3 * 64 * 32 parameters in each of 2 layers.
TEST(CheckReport, SharesTheExpertsAmongTheRanks) {
  const Deck deck = read_small({"parallel.ep=2", "batch.global_size=8", "precision.compute=fp32"});
  const std::int64_t all = count_parameters(deck.definition).total;
  EXPECT_EQ(count_parameters_of_stage(deck.definition, deck.parallel, 0).total(),
            all - 2 * 2 * 3 * 64 * 32);

  const std::string report = check_report(deck, 4);

  EXPECT_SAYS(report, "\n# On each of 4 ranks\n");
  EXPECT_SAYS(report, "tp, cp, dp, pp          1, 1, 4, 1\n");
  EXPECT_SAYS(report, "etp, ep, edp, pp        1, 2, 2, 1\n");
  EXPECT_SAYS(report, "micro-batches per step  2\n");
  EXPECT_SAYS(report, "experts of a layer      2 of 4\n");
  EXPECT_SAYS(report, "parameters              90,944\n");
  EXPECT_SAYS(report,
              "#     rank    dp    ep   edp\n"
              "#        0     0     0     0\n"
              "#        1     1     1     0\n"
              "#        2     2     0     1\n"
              "#        3     3     1     1\n");
  EXPECT_EQ(effective_deck(read_deck_text(report, "report.toml")).empty(), false)
      << "the report is a deck";
}

/// On 8 ranks with tp = 2, cp = 2, dp = 2 and ep = 2, edp = 4.
TEST(CheckReport, SharesOutTheOptimizersState) {
  const std::vector<std::string> changes = {"parallel.tp=2",          "parallel.sp=true",
                                            "parallel.cp=2",          "parallel.ep=2",
                                            "precision.compute=bf16", "batch.global_size=8"};
  std::vector<std::string> distributed = changes;
  distributed.emplace_back("parallel.distributed_optimizer=true");
  const Deck deck = read_small(distributed);
  const StageParameters parameters = count_parameters_of_stage(deck.definition, deck.parallel, 0);
  EXPECT_EQ(parameters.parted, 256 * 64 + 2 * 2 * 64 * 64);
  EXPECT_EQ(parameters.replicated, 64 + 2 * (2 * 64 + 4 * 64));
  EXPECT_EQ(parameters.routed, 2 * 2 * 3 * 64 * 32);
  const std::int64_t owned =
      parameters.parted / 4 + parameters.replicated / 8 + parameters.routed / 4;
  EXPECT_EQ(count_owned_parameters(parameters, deck.parallel, 8), owned);
  EXPECT_EQ(count_owned_parameters(parameters, read_small(changes).parallel, 8),
            parameters.total());
  EXPECT_SAYS(check_report(deck, 8),
              fmt::format("with optimizer state    {}\n", fmt::group_digits(owned)));
}

TEST(CheckReport, FollowsTheOrderOfRanks) {
  const Deck deck = read_small({"parallel.ep=2", "parallel.order=dp-ep"});
  EXPECT_SAYS(check_report(deck, 4),
              "#        0     0     0     0\n"
              "#        1     1     0     1\n"
              "#        2     2     1     0\n"
              "#        3     3     1     1\n");
}

TEST(CheckReport, RefusesRanksThatCannotShareTheWork) {
  const Deck deck = read_small({"parallel.ep=2", "batch.global_size=12", "batch.micro_size=2"});
  expect_error([&] { check_report(deck, 3); }, ExitCode::resource,
               {"parallel.ep = 2 needs a number of ranks that is a multiple of 2; this run has 3, "
                "and 2 or 4 would do"});
  expect_error([&] { check_report(deck, 4); }, ExitCode::resource,
               {"batch.global_size = 12 must be a multiple of batch.micro_size x dp = 2 x 4 on 4 "
                "ranks; 8 or 16 would do, and so would 2 ranks"});
  expect_error([&] { check_report(deck, 16); }, ExitCode::resource,
               {"; 32 would do, and so would 6 ranks"});
  EXPECT_EQ(micro_batches_per_rank(deck.batch, place_ranks(deck, 6)), 1);

  const Deck out_of_order = read_small({"parallel.order=tp-pp"});
  expect_error([&] { check_report(out_of_order, 2); }, ExitCode::deck,
               {"parallel.order = \"tp-pp\" leaves out dp"});
}

/// The small deck has H = 64, V = 256, N = 4 of size 16, E = 4 of F = 32 in both of its layers.
TEST(CountParametersOfStage, SharesOutWhatTheAxesShare) {
  const auto count = [](std::vector<std::string> changes, int stage = 0) {
    changes.emplace_back("parallel.sp=true");
    const Deck deck = read_small(changes);
    return count_parameters_of_stage(deck.definition, deck.parallel, stage).total();
  };
  const std::int64_t table = 256 * 64, matrix = 64 * 64, norms = 2 * 64, router = 4 * 64;
  const std::int64_t expert = 3 * 64 * 32;
  EXPECT_EQ(count({}), 2 * table + 64 + 2 * (4 * matrix + norms + router + 4 * expert));
  EXPECT_EQ(count({"parallel.tp=2"}),
            2 * table / 2 + 64 + 2 * (4 * matrix / 2 + norms + router + 4 * expert));
  EXPECT_EQ(count({"parallel.ep=2", "parallel.etp=2", "parallel.cp=2"}),
            2 * table + 64 + 2 * (4 * matrix + norms + router + expert));

  // Shared experts as a dense MLP, with a gate that all have whole.
  EXPECT_EQ(count({"parallel.tp=2", "moe.shared_ffn_hidden_size=48", "moe.shared_gate=true"}),
            count({"parallel.tp=2"}) + 2 * (3 * 64 * 24 + 64));

  // Parts of 256 tokens on 3 ranks: 85, 85 and 86.
  EXPECT_EQ(count({"parallel.tp=3", "model.num_heads=3", "model.head_dim=16",
                   "model.sequence_length=48"}),
            2 * 86 * 64 + 64 + 2 * (4 * 16 * 64 + norms + router + 4 * expert));

  // One key head of 16 on both ranks of tp that share it, with its bias; the norms of heads on all.
  EXPECT_EQ(
      count({"parallel.tp=4", "model.num_kv_heads=2", "model.qkv_bias=true", "model.qk_norm=true"}),
      2 * table / 4 + 64 + 2 * (4 * 16 * 64 + 3 * 16 + 2 * 16 + norms + router + 4 * expert));

  // A dense layer of F = 128.
  EXPECT_EQ(count({"parallel.tp=2", "moe.layer_frequency=2", "model.ffn_hidden_size=128"}),
            2 * table / 2 + 64 + 2 * (2 * matrix + norms) + router + 4 * expert + 3 * 64 * 64);
}

TEST(CountParametersOfStage, FollowsTheLayout) {
  const auto count = [](const std::vector<std::string>& changes, int stage) {
    const Deck deck = read_small(changes);
    return count_parameters_of_stage(deck.definition, deck.parallel, stage).total();
  };
  const std::int64_t table = 256 * 64, layer = 4 * 64 * 64 + 2 * 64 + 4 * 64 + 4 * 3 * 64 * 32;
  const std::vector<std::string> even = {"model.num_layers=8", "parallel.pp=2", "parallel.vpp=2"};
  EXPECT_EQ(count(even, 0), table + 4 * layer);
  EXPECT_EQ(count(even, 1), table + 64 + 4 * layer);
  const std::vector<std::string> uneven = {"model.num_layers=5", "parallel.pp=3",
                                           "parallel.layout=E|tttt|tL",
                                           "model.tie_embeddings=true"};
  EXPECT_EQ(count(uneven, 0), table);
  EXPECT_EQ(count(uneven, 1), 4 * layer);
  EXPECT_EQ(count(uneven, 2), table + 64 + layer) << "with a copy of the embedding";
  EXPECT_EQ(count({"model.tie_embeddings=true"}, 0), table + 64 + 2 * layer);
}

TEST(CheckReport, SaysWhatEachStageHasAndWhichHasMost) {
  const Deck deck =
      read_small({"model.num_layers=6", "parallel.pp=2", "parallel.layout=Et|t|ttt|tL",
                  "parallel.etp=2", "batch.global_size=8"});

  const std::string report = check_report(deck, 4);

  EXPECT_SAYS(report, "\n# On each of 4 ranks\n");
  EXPECT_SAYS(report, "tp, cp, dp, pp          1, 1, 2, 2\n");
  EXPECT_SAYS(report, "etp, ep, edp, pp        2, 1, 1, 2\n");
  EXPECT_SAYS(report, "experts of a layer      4 of 4, of each 1 / 2\n");
  EXPECT_SAYS(report, " on stage 0, which has most\n");
  EXPECT_SAYS(report,
              "\n# What each stage has, chunk | chunk\n"
              "#   stage 0                 embedding, layer 0 | layers 2-4\n"
              "#   stage 1                 layer 1 | layer 5, head\n");
  EXPECT_SAYS(report,
              "#     rank    dp    ep   edp    pp   etp\n"
              "#        0     0     0     0     0     0\n"
              "#        1     1     0     0     0     1\n"
              "#        2     0     0     0     1     0\n");
  EXPECT_EQ(effective_deck(read_deck_text(report, "report.toml")).empty(), false)
      << "the report is a deck";
  EXPECT_SAYS(check_report(read_small({"parallel.pp=3", "parallel.layout=Et||tL"}), 3),
              "\n# What each stage has\n#   stage 0                 embedding, layer 0\n"
              "#   stage 1                 nothing\n");
}

TEST(PlaceRanks, RefusesMicroBatchesThatHaveNoSchedule) {
  const std::vector<std::string> pipeline = {"model.num_layers=8", "parallel.pp=4",
                                             "parallel.vpp=2"};
  const auto check = [&](int global_size, int ranks, int group = 0) {
    std::vector<std::string> changes = pipeline;
    changes.insert(changes.end(), {"batch.global_size=" + std::to_string(global_size),
                                   "parallel.vpp_group_size=" + std::to_string(group)});
    place_ranks(read_small(changes), ranks);
  };
  check(8, 4);
  check(8, 8);
  check(12, 4, 8);
  expect_error([&] { check(4, 8); }, ExitCode::resource,
               {"parallel.vpp = 2 needs at least parallel.pp = 4 micro-batches per rank; this run "
                "has 2, and 4 would do, and so would parallel.vpp = 1; on 8 ranks, "
                "batch.global_size = 4 over batch.micro_size x dp = 1 x 2 makes 2 of them, and "
                "batch.global_size = 8 would do"});
  expect_error([&] { check(6, 4); }, ExitCode::resource,
               {"the last 2 of them are too few for parallel.pp = 4",
                "on 4 ranks, batch.global_size = 6 over batch.micro_size x dp = 1 x 1 makes 6 of "
                "them, and batch.global_size = 8 would do"});
  expect_error([&] { check(10, 4, 8); }, ExitCode::resource,
               {"parallel.vpp_group_size = 8", "batch.global_size = 12 would do"});
}

TEST(RankMap, LeavesOutTheMiddleOfManyRanks) {
  const auto lines = [](int ranks) {
    const std::string map = rank_map(make_rank_grids({}, ranks));
    return std::count(map.begin(), map.end(), '\n');
  };
  EXPECT_EQ(lines(32), 1 + 32);
  EXPECT_EQ(lines(33), 1 + 16 + 1 + 16);
  const std::string map = rank_map(make_rank_grids({}, 1000));
  EXPECT_SAYS(map, "#       15    15     0    15\n#      ...  968 more\n#      984   984");
  EXPECT_SAYS(map, "\n#      999   999     0   999\n");
}

TEST(RankMap, ShowsOtherAxesLargerThanOne) {
  ParallelConfig parallel;
  parallel.tp = 2;
  parallel.pp = 2;
  parallel.etp = 2;
  EXPECT_SAYS(rank_map(make_rank_grids(parallel, 8)),
              "#     rank    dp    ep   edp    tp    pp   etp\n"
              "#        0     0     0     0     0     0     0\n"
              "#        1     0     0     0     1     0     1\n"
              "#        2     1     0     1     0     0     0\n");
}

}  // namespace
}  // namespace konclave
