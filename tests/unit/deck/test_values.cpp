#include "small_deck.hpp"

#include <filesystem>

namespace konclave {
namespace {

TEST(DeckValues, FillEachStruct) {
  const Deck deck = read_deck_text(
      kSmallDeck +
          "[optimizer]\nlr = 1\nbetas = [0.5, 0.75]\nschedule = \"wsd\"\nwarmup_steps = 3\n"
          "[precision]\ncompute = \"fp64\"\n"
          "[parallel]\ntp = 2\nsp = true\ncp = 4\ncp_comm = \"all_gather\"\npp = 2\nvpp = 1\n"
          "vpp_group_size = 5\nfirst_stage_layers = 1\nlast_stage_layers = 1\nep = 2\netp = 4\n"
          "order = \"ep-cp-tp-dp-pp\"\ngrad_reduce = \"library\"\n"
          "[fault]\nnan_budget = 3\n"
          "[eval]\ninterval = 5\nsteps = 2\n"
          "[checkpoint]\ninterval = 4\nkeep = 7\n"
          "[log]\nprogress = \"lines\"\nsample_prompt = \"Once \\\"\"\ntrace_steps = [9, 2]\n"
          "per_layer = true\ntensorboard = false\n"
          "[backends]\ngemm = \"reference\"\n",
      "deck.toml");

  EXPECT_EQ(deck.run.steps, 20);
  EXPECT_EQ(deck.definition.model.hidden_size, 64);
  EXPECT_EQ(deck.definition.moe.num_experts, 4);
  EXPECT_EQ(deck.batch.global_size, 4);
  EXPECT_EQ(deck.data.files, std::vector<std::string>{"/data/a.txt"});
  EXPECT_EQ(deck.optimizer.lr, 1.0) << "an integer is taken for a number";
  EXPECT_EQ(deck.optimizer.betas, (std::array<double, 2>{0.5, 0.75}));
  EXPECT_EQ(deck.optimizer.schedule, "wsd");
  EXPECT_EQ(deck.definition.compute, DType::fp64);
  EXPECT_EQ(deck.parallel.tp, 2);
  EXPECT_TRUE(deck.parallel.sp);
  EXPECT_EQ(deck.parallel.cp, 4);
  EXPECT_EQ(deck.parallel.cp_comm, "all_gather");
  EXPECT_EQ(deck.parallel.pp, 2);
  EXPECT_EQ(deck.parallel.vpp_group_size, 5);
  EXPECT_EQ(deck.parallel.first_stage_layers, 1);
  EXPECT_EQ(deck.parallel.last_stage_layers, 1);
  EXPECT_EQ(deck.parallel.ep, 2);
  EXPECT_EQ(deck.parallel.etp, 4);
  EXPECT_EQ(deck.parallel.order, "ep-cp-tp-dp-pp");
  EXPECT_EQ(deck.parallel.grad_reduce, "library");
  EXPECT_EQ(deck.fault.nan_budget, 3);
  EXPECT_EQ(deck.eval.steps, 2);
  EXPECT_EQ(deck.checkpoint.keep, 7);
  EXPECT_EQ(deck.log.sample_prompt, "Once \"");
  EXPECT_EQ(deck.log.trace_steps, (std::vector<std::int64_t>{2, 9}));
  EXPECT_TRUE(deck.log.per_layer);
  EXPECT_FALSE(deck.log.tensorboard);
  EXPECT_EQ(deck.backends.gemm, "reference");
  EXPECT_EQ(deck.backends.attention, "auto");
}

TEST(DeckValues, DefaultsAreThoseOfTheStructs) {
  const Deck deck = read_small();

  EXPECT_EQ(deck.run.seed, RunConfig().seed);
  EXPECT_EQ(deck.definition.moe.top_k, MoeConfig().top_k);
  EXPECT_EQ(deck.definition.moe.receive_budget, MoeConfig().receive_budget);
  EXPECT_EQ(deck.parallel.order, ParallelConfig().order);
  EXPECT_EQ(deck.optimizer.lr, OptimizerConfig().lr);
  EXPECT_FALSE(deck.log.per_layer);
  EXPECT_TRUE(deck.log.tensorboard);
  EXPECT_EQ(deck.definition.compute, ModelDefinition().compute);
}

TEST(DeckValues, LayerFrequencyIsAnIntegerOrAList) {
  const auto layers = [](const std::string& value) {
    return read_small(
               {"model.num_layers=4", "model.ffn_hidden_size=8", "moe.layer_frequency=" + value})
        .definition.moe.layer_frequency;
  };
  EXPECT_EQ(layers("1"), (std::vector<int>{1, 1, 1, 1}));
  EXPECT_EQ(layers("2"), (std::vector<int>{1, 0, 1, 0}));
  EXPECT_EQ(layers("3"), (std::vector<int>{1, 0, 0, 1}));
  EXPECT_EQ(layers("[0, 1, 1, 1]"), (std::vector<int>{0, 1, 1, 1}));
  EXPECT_EQ(read_small().definition.moe.layer_frequency, (std::vector<int>{1, 1}));
}

TEST(DeckValues, TraceStepsAreTheFirstNOrAList) {
  const auto steps = [](const std::string& value) {
    return read_small({"log.trace_steps=" + value}).log.trace_steps;
  };
  EXPECT_TRUE(read_small().log.trace_steps.empty());
  EXPECT_TRUE(steps("0").empty());
  EXPECT_TRUE(steps("[]").empty());
  EXPECT_EQ(steps("3"), (std::vector<std::int64_t>{1, 2, 3}));
  EXPECT_EQ(steps("[20, 4]"), (std::vector<std::int64_t>{4, 20}));
  EXPECT_SAYS(errors_of_small({"log.trace_steps=1001"}), "log.trace_steps = 1001 is out of range");
  EXPECT_SAYS(errors_of_small({"log.trace_steps=[1, 0]"}),
              "log.trace_steps = 0 is out of range: 1 to");
  EXPECT_SAYS(errors_of_small({"log.trace_steps=[7, 2, 7]"}), "names step 7 twice");
  EXPECT_SAYS(errors_of_small({"log.trace_steps=all"}), "log.trace_steps wants an integer");
}

TEST(DeckValues, ALayoutIsRefusedWhereItCannotBeRead) {
  EXPECT_EQ(read_small({"parallel.pp=2", "parallel.layout=Et|tL"}).parallel.layout, "Et|tL");
  EXPECT_SAYS(errors_of(kSmallDeck + "[parallel]\nlayout = \"Ex|tL\"\n"),
              "deck.toml:17:10: error: parallel.layout = \"Ex|tL\": there is no \"x\"");
}

TEST(DeckValues, TheOrderOfRanksNamesAxes) {
  EXPECT_EQ(read_small({"parallel.order=pp-dp"}).parallel.order, "pp-dp");
  EXPECT_SAYS(errors_of_small({"parallel.order=tp-xp"}),
              "parallel.order = \"tp-xp\": there is no axis \"xp\"");
  EXPECT_SAYS(errors_of_small({"parallel.order=tp-dp-tp"}), "tp is named twice");
  EXPECT_SAYS(errors_of_small({"parallel.order=3"}), "parallel.order");
}

TEST(DeckValues, WindowIsAnIntegerOrTheMicroBatch) {
  EXPECT_EQ(read_small().definition.moe.window, 1);
  EXPECT_EQ(read_small({"moe.window=microbatch"}).definition.moe.window, 0);
  EXPECT_EQ(read_small({"moe.window=2", "batch.micro_size=4"}).definition.moe.window, 2);
  EXPECT_SAYS(errors_of_small({"moe.window=0"}), "moe.window = 0 is out of range: 1 to");
  EXPECT_SAYS(errors_of_small({"moe.window=batch"}),
              "moe.window wants an integer or \"microbatch\", not \"batch\"");
}

TEST(DeckValues, BalancingIsOneKindOrAList) {
  const auto moe = [](const std::string& kinds, const std::string& coefficients) {
    return read_small({"moe.balancing=" + kinds, "moe.aux_loss_coefficients=" + coefficients})
        .definition.moe;
  };
  EXPECT_EQ(moe("aux_loss", "0.5").aux_loss_coefficient(), 0.5);
  EXPECT_EQ(moe("[\"aux_loss\"]", "[0.25]").aux_loss_coefficient(), 0.25);
  EXPECT_EQ(moe("none", "[]").aux_loss_coefficient(), 0);
  EXPECT_SAYS(errors_of_small({"moe.balancing=[\"aux_loss\", \"aux_loss\"]"}), "twice");
  EXPECT_SAYS(errors_of_small({"moe.balancing=[]"}), "is empty");
  EXPECT_EQ(moe("aux_loss", "0.5").global_aux_counts, "previous");
}

TEST(DeckValues, TheGlobalLossGoesByOneOfTwoLoads) {
  const auto overrides = [](const std::string& counts) {
    return std::vector<std::string>{"moe.balancing=[\"aux_loss\", \"global_aux_loss\"]",
                                    "moe.aux_loss_coefficients=[0.1, 0.2]",
                                    "moe.global_aux_counts=" + counts};
  };
  const MoeConfig running = read_small(overrides("running")).definition.moe;
  EXPECT_TRUE(running.goes_by_running_load());
  EXPECT_FALSE(running.goes_by_previous_load());
  const MoeConfig previous = read_small(overrides("previous")).definition.moe;
  EXPECT_FALSE(previous.goes_by_running_load());
  EXPECT_TRUE(previous.goes_by_previous_load());
  const MoeConfig none = read_small().definition.moe;
  EXPECT_FALSE(none.goes_by_running_load() || none.goes_by_previous_load());
  EXPECT_SAYS(errors_of_small(overrides("so_far")), "\"previous\", \"running\"");
}

TEST(DeckValues, RulesOfTheRouter) {
  const MoeConfig defaults = read_small().definition.moe;
  EXPECT_EQ(defaults.score_function, "softmax");
  EXPECT_EQ(defaults.num_groups, 0);
  EXPECT_EQ(defaults.scaling_factor, 1);
  EXPECT_EQ(defaults.router_dtype, "fp32");
  const MoeConfig moe =
      read_small({"moe.score_function=sigmoid", "moe.num_groups=4", "moe.group_top_k=2",
                  "moe.scaling_factor=2.5", "moe.router_dtype=fp64"})
          .definition.moe;
  EXPECT_EQ(moe.score_function, "sigmoid");
  EXPECT_TRUE(moe.has_groups());
  EXPECT_EQ(moe.group_top_k, 2);
  EXPECT_EQ(moe.scaling_factor, 2.5);
  EXPECT_EQ(moe.router_dtype, "fp64");
  EXPECT_EQ(errors_of_small({"moe.top_k=1", "moe.score_function=sigmoid"}), "");
  EXPECT_EQ(errors_of_small({"moe.num_groups=1"}), "") << "one group is none";
  EXPECT_FALSE(moe.records() || moe.replays());
  EXPECT_TRUE(read_small({"moe.replay=record"}).definition.moe.records());
  EXPECT_TRUE(read_small({"moe.replay=a/choices.h5"}).definition.moe.replays());
  EXPECT_SAYS(errors_of_small({"moe.score_function=relu"}), "\"softmax\", \"sigmoid\"");
  EXPECT_SAYS(errors_of_small({"moe.scaling_factor=0"}), "moe.scaling_factor = 0 is out of range");
  EXPECT_SAYS(errors_of_small({"moe.num_groups=-1"}), "moe.num_groups = -1 is out of range");
  EXPECT_SAYS(errors_of_small({"moe.group_top_k=5000"}), "moe.group_top_k = 5000 is out of range");
  EXPECT_SAYS(errors_of_small({"moe.router_dtype=bf16"}), "\"fp32\", \"fp64\"");
}

TEST(DeckValues, StepTimeout) {
  EXPECT_EQ(read_small({}).fault.step_timeout, FaultConfig::kAutoTimeout);
  EXPECT_EQ(read_small({"fault.step_timeout=auto"}).fault.step_timeout, FaultConfig::kAutoTimeout);
  EXPECT_EQ(read_small({"fault.step_timeout=0"}).fault.step_timeout, 0);
  EXPECT_EQ(read_small({"fault.step_timeout=90.5"}).fault.step_timeout, 90.5);
  EXPECT_EQ(read_small({"fault.step_timeout=2 min"}).fault.step_timeout, 120);
  EXPECT_SAYS(errors_of_small({"fault.step_timeout=-1"}), "fault.step_timeout = -1");
  EXPECT_SAYS(errors_of_small({"fault.step_timeout=soon"}), "fault.step_timeout: 'soon'");
}

TEST(DeckValues, DurationsHaveUnits) {
  EXPECT_EQ(read_small({"run.time_limit=90"}).run.time_limit, 90);
  EXPECT_EQ(read_small({"run.time_limit=2 h 30 min"}).run.time_limit, 9000);
  EXPECT_SAYS(errors_of_small({"run.time_limit=2 weeks"}), "run.time_limit: '2 weeks'");
}

TEST(DeckValues, RopeScalingIsATable) {
  const Deck deck = read_deck_text(kSmallDeck +
                                       "[model.rope_scaling]\ntype = \"llama3\"\nfactor = 8\n"
                                       "original_max_position_embeddings = 8192\n",
                                   "deck.toml", {"model.rope_scaling.high_freq_factor=5"});
  const RopeScaling& scaling = deck.definition.model.rope_scaling;

  EXPECT_EQ(scaling.type, "llama3");
  EXPECT_EQ(scaling.factor, 8);
  EXPECT_EQ(scaling.original_max_position_embeddings, 8192);
  EXPECT_EQ(scaling.high_freq_factor, 5);

  const Deck inline_table = read_small({"model.rope_scaling={type = \"linear\", factor = 2}"});
  EXPECT_EQ(inline_table.definition.model.rope_scaling.factor, 2);
}

TEST(DeckValues, ModelUseNeedsNoTrainingKeys) {
  const std::string model_only = kSmallDeck.substr(0, kSmallDeck.find("[batch]"));
  const std::string without_run = model_only.substr(model_only.find("[model]"));

  const Deck deck = read_deck_text(without_run, "deck.toml", {}, DeckUse::model);

  EXPECT_EQ(deck.definition.model.num_heads, 4);
  EXPECT_EQ(count_errors(errors_of(without_run)), 3) << "run.steps, batch.global_size, data.files";
  EXPECT_SAYS(errors_of("", {}, DeckUse::model), "model.num_heads is missing");
}

TEST(DeckValues, EveryTypeIsSpelledSoThatItReadsBack) {
  const Deck deck = read_small({"model.norm_eps=1e-5", "run.name=a b", "moe.top_k=3"});

  const auto text = [&](const std::string& key) {
    for (const DeckValue& value : deck.values) {
      if (value.key == key) return value.text;
    }
    return std::string("no such key");
  };
  EXPECT_EQ(text("model.norm_eps"), "1e-05");
  EXPECT_EQ(text("optimizer.clip_norm"), "1.0");
  EXPECT_EQ(text("run.name"), "\"a b\"");
  EXPECT_EQ(text("moe.top_k"), "3");
  EXPECT_EQ(text("moe.pre_softmax"), "false");
  EXPECT_EQ(text("data.files"), "[\"/data/a.txt\"]");
  EXPECT_EQ(text("optimizer.betas"), "[0.9, 0.95]");
}

TEST(DeckValues, ShippedDecksAreValid) {
  const std::filesystem::path inputs = std::filesystem::path(KONCLAVE_SOURCE_DIR) / "inputs";

  const Deck quickstart = read_deck(inputs / "quickstart.toml");
  const Deck moe = read_deck(inputs / "tiny" / "moe.toml");
  const Deck dense = read_deck(inputs / "tiny" / "dense.toml");
  const Deck fine_grained = read_deck(inputs / "tiny" / "fine_grained.toml");

  EXPECT_EQ(quickstart.definition.model.hidden_size % 128, 0);
  EXPECT_EQ(quickstart.definition.moe.ffn_hidden_size % 128, 0);
  EXPECT_EQ(moe.definition.moe.num_experts, 4);
  EXPECT_EQ(fine_grained.definition.moe.top_k, 8);
  EXPECT_TRUE(fine_grained.definition.moe.shared_gate);
  EXPECT_FALSE(dense.definition.is_moe_layer(0));
  EXPECT_EQ(dense.run.steps, moe.run.steps);
  EXPECT_EQ(moe.data.files.front(), (inputs / "tiny" / "*.toml").string());
}

}  // namespace
}  // namespace konclave
