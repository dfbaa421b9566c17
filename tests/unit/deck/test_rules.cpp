#include "base/text.hpp"
#include "deck/mapping_rules.hpp"
#include "deck/schema.hpp"
#include "small_deck.hpp"

#include <map>
#include <tuple>

namespace konclave {
namespace {

struct Broken {
  std::vector<std::string> changes;  ///< to the small deck
  std::string instead;               ///< what the complaint says would do
};

/// For each rule a deck that breaks it.
const std::map<std::string, Broken> kBroken = {
    {"model.num_heads must be a multiple of model.num_kv_heads",
     {{"model.num_kv_heads=3"}, "; model.num_kv_heads = 1, 2 or 4 would do"}},
    {"without model.head_dim, model.hidden_size must be a multiple of model.num_heads",
     {{"model.hidden_size=66"}, "; model.hidden_size = 64 or 72 would do"}},
    {"the size of a head must be even, because the rotary embedding turns pairs",
     {{"model.head_dim=5"}, "; model.head_dim = 4 or 6 would do"}},
    {"llama3 and yarn need model.rope_scaling.original_max_position_embeddings",
     {{"model.rope_scaling.type=yarn"},
      "; a number above 0, or model.rope_scaling.type = \"linear\" would do"}},
    {"model.rope_scaling.low_freq_factor must be below model.rope_scaling.high_freq_factor",
     {{"model.rope_scaling.type=none", "model.rope_scaling.low_freq_factor=4"},
      "; a low one of 2 would do"}},
    {"model.rope_scaling.beta_slow must be below model.rope_scaling.beta_fast",
     {{"model.rope_scaling.type=none", "model.rope_scaling.beta_fast=1"},
      "; a slow one of 0.5 would do"}},
    {"a list moe.layer_frequency must have model.num_layers entries",
     {{"moe.layer_frequency=[1, 1, 1]"}, "; 2 entries instead of 3, or an integer would do"}},
    {"with experts, moe.layer_frequency must leave at least one MoE layer",
     {{"moe.layer_frequency=[0, 0]", "model.ffn_hidden_size=8"},
      "; moe.layer_frequency = 1, or moe.num_experts = 0 would do"}},
    {"dense layers need model.ffn_hidden_size",
     {{"moe.layer_frequency=2"},
      "; model.ffn_hidden_size = 256, or moe.layer_frequency = 1 would do"}},
    {"experts need moe.ffn_hidden_size",
     {{"moe.ffn_hidden_size=0"}, "; moe.ffn_hidden_size = 64 would do"}},
    {"moe.top_k must not exceed moe.num_experts",
     {{"moe.top_k=5"}, "; moe.top_k = 4 or less would do"}},
    {"training with moe.top_k = 1 needs moe.pre_softmax = true or moe.score_function = "
     "\"sigmoid\": a softmax over the one chosen expert is constant 1, and the router would get no "
     "gradient",
     {{"moe.top_k=1"}, "; moe.pre_softmax = true, or moe.top_k = 2 would do"}},
    {"moe.pre_softmax = true needs moe.score_function = \"softmax\"",
     {{"moe.pre_softmax=true", "moe.score_function=sigmoid"},
      "; moe.pre_softmax = false would do"}},
    {"moe.num_experts must be a multiple of moe.num_groups",
     {{"moe.num_groups=3", "moe.group_top_k=2"}, "; moe.num_experts = 3 or 6 would do"}},
    {"with groups of experts, moe.group_top_k must be 1 to moe.num_groups, and 0 without",
     {{"moe.num_groups=2"}, "; 1 to 2 would do"}},
    {"moe.group_top_k must not exceed moe.top_k: a group is chosen by its best moe.top_k / "
     "moe.group_top_k experts",
     {{"moe.num_groups=4", "moe.group_top_k=3"}, "; moe.group_top_k = 2 or less would do"}},
    {"moe.top_k must not exceed the experts in moe.group_top_k of moe.num_groups groups",
     {{"moe.num_groups=4", "moe.group_top_k=1"}, "; moe.top_k = 1 or less would do"}},
    {"moe.shared_ffn_hidden_size above 0 needs experts beside it, moe.num_experts above 0",
     {{"moe.num_experts=0", "model.ffn_hidden_size=64", "moe.shared_ffn_hidden_size=64"},
      "; moe.shared_ffn_hidden_size = 0 would do"}},
    {"moe.shared_gate = true needs shared experts, moe.shared_ffn_hidden_size above 0",
     {{"moe.shared_gate=true"},
      "; moe.shared_ffn_hidden_size = 32, or moe.shared_gate = false would do"}},
    {"\"none\" and \"sinkhorn\" in moe.balancing must stand alone",
     {{"moe.balancing=[\"none\", \"aux_loss\"]", "moe.aux_loss_coefficients=1"},
      "; moe.balancing = \"none\", \"sinkhorn\" or \"aux_loss\" would do"}},
    {"moe.balancing = \"sinkhorn\" chooses by its plan, so moe.score_function must be \"softmax\", "
     "without moe.num_groups and moe.expert_bias",
     {{"moe.balancing=sinkhorn", "moe.expert_bias=true"},
      "; moe.balancing = \"aux_loss\" would do"}},
    {"moe.aux_loss_coefficients must have one coefficient for each loss that moe.balancing lists",
     {{"moe.balancing=aux_loss"}, "; 1 instead of 0 would do"}},
    {"moe.global_aux_counts = \"running\" needs \"global_aux_loss\" in moe.balancing, which alone "
     "goes by it",
     {{"moe.global_aux_counts=running"}, "; moe.global_aux_counts = \"previous\" would do"}},
    {"moe.force_bias other than 0 needs moe.force_load_balancing = true",
     {{"moe.force_bias=-1"}, "; moe.force_bias = 0, or moe.force_load_balancing = true would do"}},
    {"moe.replay needs experts, moe.num_experts above 0",
     {{"moe.num_experts=0", "model.ffn_hidden_size=64", "moe.replay=record"},
      "; moe.replay = \"\" would do"}},
    {"experts that moe.replay takes from a file are not chosen, so moe.force_load_balancing must "
     "be false, and moe.balancing not \"sinkhorn\"",
     {{"moe.replay=choices.h5", "moe.force_load_balancing=true"},
      "; moe.replay = \"\" or \"record\" would do"}},
    {"moe.pad_to_capacity = true needs a capacity, moe.capacity_factor above 0",
     {{"moe.pad_to_capacity=true"}, "; moe.capacity_factor = 1.25 would do"}},
    {"moe.balancing = \"sinkhorn\" plans evenly by itself, so moe.capacity_factor must be 0",
     {{"moe.balancing=sinkhorn", "moe.capacity_factor=1"},
      "; moe.capacity_factor = 0, or moe.balancing = \"aux_loss\" would do"}},
    {"moe.dispatcher = \"allgather\" moves all rows in one round, so moe.receive_budget must be 0",
     {{"moe.dispatcher=allgather", "moe.receive_budget=64"},
      "; moe.receive_budget = 0, or moe.dispatcher = \"alltoall\" would do"}},
    {"batch.global_size must be a multiple of batch.micro_size",
     {{"batch.micro_size=3"}, "; batch.micro_size = 1, 2 or 4 would do"}},
    {"batch.micro_size must be a multiple of moe.window",
     {{"moe.window=4", "batch.micro_size=2"}, "; moe.window = 1 or 2 would do"}},
    {"a micro-batch, batch.micro_size * model.sequence_length, must stay below 2^31 tokens",
     {{"batch.global_size=1048576", "batch.micro_size=1048576", "model.sequence_length=2048"},
      "; batch.micro_size = 1048575 or less would do"}},
    {"recompute.layers must not exceed model.num_layers",
     {{"recompute.granularity=full", "recompute.layers=3"},
      "; recompute.layers = 2 or less would do"}},
    {"optimizer.min_lr must not exceed optimizer.lr",
     {{"optimizer.min_lr=1"}, "; optimizer.min_lr = 0.0003 or less would do"}},
    {"optimizer.warmup_steps must not exceed run.steps",
     {{"optimizer.warmup_steps=21"}, "; optimizer.warmup_steps = 20 or less would do"}},
    {"with schedule \"wsd\", optimizer.warmup_steps + optimizer.decay_steps must not exceed "
     "run.steps",
     {{"optimizer.schedule=wsd", "optimizer.warmup_steps=11", "optimizer.decay_steps=10"},
      "; optimizer.decay_steps = 9 or less would do"}},
    {"parallel.distributed_optimizer needs parallel.grad_reduce = \"ordered\": the library's sums "
     "are "
     "for all ranks",
     {{"parallel.distributed_optimizer=true", "parallel.grad_reduce=library"},
      "; parallel.grad_reduce = \"ordered\" would do"}},
    {"parallel.grad_wire = \"bf16\" needs parallel.grad_reduce = \"ordered\": MPI cannot add bf16",
     {{"parallel.grad_wire=bf16", "parallel.grad_reduce=library", "precision.compute=bf16"},
      "; parallel.grad_reduce = \"ordered\", or parallel.grad_wire = \"fp32\" would do"}},
    {"parallel.grad_wire = \"bf16\" needs precision.compute = \"bf16\"",
     {{"parallel.grad_wire=bf16", "precision.compute=fp32"},
      "; parallel.grad_wire = \"fp32\" would do"}},
    {"parallel.overlap_param_gather needs parallel.distributed_optimizer = true: without, every "
     "rank "
     "makes all values itself",
     {{"parallel.overlap_param_gather=true"}, "; parallel.overlap_param_gather = false would do"}},
    {"parallel.overlap_tp with parallel.tp > 1 needs parallel.sp = true: without, there are no "
     "rows "
     "to gather",
     {{"parallel.overlap_tp=true", "parallel.tp=2", "moe.num_experts=0",
       "model.ffn_hidden_size=64"},
      "; parallel.sp = true, or parallel.overlap_tp = false would do"}},
    {"optimizer.moments = \"bf16\" does not go with precision.compute = \"fp64\", which is for "
     "verification",
     {{"optimizer.moments=bf16", "precision.compute=fp64"},
      "; optimizer.moments = \"fp32\" would do"}},
    {"text as bytes needs model.vocab_size of at least 256",
     {{"model.vocab_size=255"}, "; model.vocab_size = 256, or data.kind = \"tokens\" would do"}},
    {"validation (eval.interval above 0) needs held-out text: data.kind = \"text\" and data.split "
     "below 1",
     {{"eval.interval=1", "data.split=1"}, "; eval.interval = 0, or data.split = 0.95 would do"}},
    {"log.sample_prompt needs data.kind = \"text\": tokens of other data have no spelling",
     {{"log.sample_prompt=Once", "data.kind=tokens"}, "; log.sample_prompt = \"\" would do"}},
    {"checkpoint.keep_every must be a multiple of checkpoint.interval",
     {{"checkpoint.interval=2", "checkpoint.keep_every=3"},
      "; checkpoint.keep_every = 2 or 4 would do"}},
    {"model.num_heads must be a multiple of parallel.tp",
     {{"parallel.tp=8", "parallel.sp=true"}, "; parallel.tp = 1, 2 or 4 would do"}},
    {"model.num_kv_heads must be a multiple of parallel.tp, or parallel.tp of it: then several "
     "ranks have the same head",
     {{"model.hidden_size=96", "model.num_heads=12", "model.num_kv_heads=6", "parallel.tp=4",
       "parallel.sp=true"},
      "; parallel.tp = 1 or 2 would do"}},
    {"model.ffn_hidden_size must be a multiple of parallel.tp where there is a dense layer",
     {{"moe.layer_frequency=2", "model.ffn_hidden_size=30", "parallel.tp=4", "parallel.sp=true"},
      "; parallel.tp = 1 or 2 would do"}},
    {"moe.shared_ffn_hidden_size must be a multiple of parallel.tp",
     {{"moe.shared_ffn_hidden_size=30", "parallel.tp=4", "parallel.sp=true"},
      "; parallel.tp = 1 or 2 would do"}},
    {"model.vocab_size must not be less than parallel.tp",
     {{"data.kind=tokens", "model.vocab_size=3", "parallel.tp=4", "parallel.sp=true"},
      "; parallel.tp = 1 or 2 would do"}},
    {"moe.ffn_hidden_size must be a multiple of parallel.etp",
     {{"parallel.etp=3"}, "; parallel.etp = 1, 2, 4, 8, 16 or 32 would do"}},
    {"moe.num_experts must be a multiple of parallel.ep",
     {{"parallel.ep=3"}, "; parallel.ep = 1, 2 or 4 would do"}},
    {"parallel.ep and parallel.etp above 1 need experts, moe.num_experts above 0",
     {{"parallel.ep=2", "moe.num_experts=0", "model.ffn_hidden_size=64"},
      "; parallel.ep = 1 and parallel.etp = 1 would do"}},
    {"with experts, parallel.tp above 1 needs parallel.sp = true: otherwise all ranks of tp would "
     "send the same tokens",
     {{"parallel.tp=2"}, "; parallel.sp = true, or parallel.tp = 1 would do"}},
    {"with parallel.cp above 1, model.sequence_length must be a multiple of twice parallel.cp, "
     "because each rank has two pieces of a sequence",
     {{"parallel.cp=3"},
      "; parallel.cp = 1, 2, 4, 8 or 16, or model.sequence_length = 30 or 36 would do"}},
    {"with parallel.sp, model.sequence_length / parallel.cp must be a multiple of parallel.tp, "
     "whose ranks share out its rows",
     {{"model.num_heads=8", "model.sequence_length=36", "parallel.cp=3", "parallel.tp=8",
       "parallel.sp=true"},
      "; parallel.tp = 1, 2 or 4, or model.sequence_length = 24 or 48 would do"}},
    {"with parallel.cp_comm = \"a2a\", the heads that a rank of tp has, of queries as of keys, "
     "must be a multiple of parallel.cp",
     {{"model.num_kv_heads=2", "parallel.cp=4", "parallel.cp_comm=a2a"},
      "; a rank of tp has 4 of queries and 2 of keys; parallel.cp_comm = \"ring\" or "
      "\"all_gather\", or parallel.cp = 1 or 2 would do"}},
    {"the stages of the pipeline have all layers: parallel.layout names each once, in a multiple "
     "of parallel.pp parts, or else what parallel.first_stage_layers and "
     "parallel.last_stage_layers leave of model.num_layers is shared evenly by the other stages, "
     "and the layers of each stage by parallel.vpp, which above 1 needs parallel.pp above 1",
     {{"model.num_layers=24", "parallel.pp=4", "parallel.vpp=4"},
      "(model.num_layers = 24); 1, 2, 3 or 6 would do"}},
    {"with several chunks on a stage, parallel.vpp_group_size must not be less than parallel.pp",
     {{"model.num_layers=8", "parallel.pp=4", "parallel.vpp=2", "parallel.vpp_group_size=3"},
      "; parallel.vpp_group_size = 4 would do, or 0, which takes it"}},
    {"parallel.order must name every axis larger than 1, and pp last where it is larger than 1, "
     "unless dp and edp are the same",
     {{"parallel.ep=2", "parallel.order=tp-cp-dp-pp"},
      "parallel.order = \"tp-cp-dp-pp\" leaves out ep, larger than 1 on 2 ranks; "
      "\"tp-cp-ep-dp-pp\" would do"}},
};

TEST(DeckRules, EachHasADeckThatBreaksItAndOnlyIt) {
  Deck defaults;
  const deck::Schema schema(defaults);
  for (const deck::Rule& rule : schema.rules()) {
    const auto broken = kBroken.find(rule.sentence);
    ASSERT_NE(broken, kBroken.end()) << "no bad case for: " << rule.sentence;

    const std::string errors = errors_of_small(broken->second.changes);

    EXPECT_SAYS(errors, broken->second.instead);
    EXPECT_EQ(count_errors(errors), 1) << errors;
    if (!rule.is_whole) {
      EXPECT_SAYS(errors, rule.sentence + "; here ");
      for (const std::string& key : rule.keys) EXPECT_SAYS(errors, key + " = ");
    }
    const bool matters_to_model = !errors_of_small(broken->second.changes, DeckUse::model).empty();
    EXPECT_EQ(matters_to_model, rule.scope == deck::RuleScope::always) << rule.sentence;
  }
  EXPECT_EQ(schema.rules().size(), kBroken.size());
  EXPECT_EQ(errors_of_small({}), "");
}

TEST(DeckRules, OfTheMappingHoldForAModelThatIsOnlyUsed) {
  Deck defaults;
  const deck::Schema schema(defaults);
  for (const deck::Rule& rule : schema.rules()) {
    const Broken& broken = kBroken.at(rule.sentence);
    if (rule.scope == deck::RuleScope::always) continue;
    const Deck deck = read_small(broken.changes, DeckUse::model);

    const std::string fault = mapping_fault(deck.definition, deck.parallel);

    if (rule.scope == deck::RuleScope::training) {
      EXPECT_EQ(fault, "");
    } else {
      EXPECT_SAYS(fault, broken.instead);
      EXPECT_EQ(fault.find('\n'), std::string::npos) << fault;
    }
  }
}

/// Decks that are legal though one condition of a rule is near its edge.
TEST(DeckRules, LeaveLegalMappingsAlone) {
  for (const std::vector<std::string>& changes : std::vector<std::vector<std::string>>{
           {"parallel.tp=4", "parallel.sp=true", "model.num_kv_heads=2"},
           {"parallel.tp=2", "moe.num_experts=0", "model.ffn_hidden_size=64"},
           {"parallel.tp=2", "parallel.sp=true", "moe.layer_frequency=2",
            "model.ffn_hidden_size=6"},
           {"parallel.cp=16"},
           {"parallel.cp=2", "parallel.tp=2", "parallel.sp=true", "parallel.cp_comm=a2a"},
           {"parallel.etp=32", "parallel.ep=4"},
           {"parallel.pp=2", "parallel.layout=E|ttL"},
           {"parallel.pp=2", "model.num_layers=8", "parallel.vpp=2", "parallel.vpp_group_size=3"},
           {"parallel.pp=2", "parallel.vpp_group_size=1"},
           {"moe.dispatcher=allgather"}}) {
    EXPECT_EQ(errors_of_small(changes), "");
  }
}

/// What a complaint says would do does: with each of the sizes the deck is legal.
TEST(DeckRules, OfTheMappingNameLegalSizes) {
  const std::vector<std::string> base = {
      "model.num_heads=12",       "model.num_kv_heads=6",  "model.hidden_size=96",
      "model.sequence_length=48", "moe.layer_frequency=2", "model.ffn_hidden_size=40",
      "parallel.sp=true",         "moe.num_experts=6",     "parallel.order=tp-cp-ep-dp-pp"};
  const auto errors_with = [&](const std::string& change) {
    std::vector<std::string> changes = base;
    changes.push_back(change);
    return errors_of_small(changes);
  };
  for (const auto& [key, bad, legal] : std::vector<std::tuple<std::string, int, std::vector<int>>>{
           {"parallel.tp", 3, {1, 2}},
           {"parallel.cp", 7, {2, 3, 4, 6, 8, 12}},
           {"parallel.ep", 4, {1, 2, 3, 6}},
           {"parallel.etp", 5, {1, 2, 4, 8, 16, 32}}}) {
    std::vector<std::string> words;
    for (const int size : legal) {
      words.push_back(std::to_string(size));
      EXPECT_EQ(errors_with(key + "=" + words.back()), "");
    }
    const std::string last = words.back();
    words.pop_back();
    const std::string errors = errors_with(key + "=" + std::to_string(bad));
    EXPECT_SAYS(errors, key + " = " + join(words, ", ") + " or " + last);
  }
}

TEST(DeckRules, OfThePipelineNameWhatTheyCannotPlace) {
  EXPECT_SAYS(
      errors_of_small({"parallel.vpp=2"}),
      "parallel.vpp = 2 needs more than one stage, but parallel.pp = 1; parallel.vpp = 1 or "
      "parallel.pp = 2 would do");
  EXPECT_SAYS(errors_of_small({"parallel.pp=3"}),
              "model.num_layers = 2 cannot be shared evenly by parallel.pp = 3 stages; "
              "parallel.pp = 1 or 2 would do");
  EXPECT_SAYS(errors_of_small({"parallel.pp=2", "parallel.layout=Et|tm|L"}),
              "parallel.layout = \"Et|tm|L\": m is a layer of multi-token prediction");
  EXPECT_SAYS(errors_of_small({"parallel.pp=2", "parallel.layout=Et|tt|L"}), "has 3 parts");
  EXPECT_SAYS(
      errors_of_small({"parallel.ep=2", "parallel.pp=2", "parallel.order=tp-cp-pp-ep-dp"}),
      "parallel.order = \"tp-cp-pp-ep-dp\": pp must come last, because dp = 2 and edp = 1 differ; "
      "\"tp-cp-ep-dp-pp\" would do");
}

TEST(DeckRules, NameTheValuesAndPlacesOfAllTheirKeys) {
  const std::string errors = errors_of(kSmallDeck + "[optimizer]\nmin_lr = 0.5\nlr = 0.25\n");
  EXPECT_SAYS(errors,
              "deck.toml:17:10: error: optimizer.min_lr must not exceed optimizer.lr; here "
              "optimizer.min_lr = 0.5, optimizer.lr = 0.25; optimizer.min_lr = 0.25 or less would "
              "do\n");
  EXPECT_SAYS(errors, "deck.toml:18:6: note: optimizer.lr = 0.25\n");
  EXPECT_SAYS(errors_of_small({"model.num_kv_heads=3"}),
              "deck.toml:8:13: error: model.num_heads must be a multiple of model.num_kv_heads; "
              "here model.num_heads = 4, model.num_kv_heads = 3; model.num_kv_heads = 1, 2 or 4 "
              "would do\n");
  EXPECT_SAYS(errors_of_small({"model.num_kv_heads=3"}),
              "command line: note: \"model.num_kv_heads=3\": model.num_kv_heads = 3");
  EXPECT_SAYS(errors_of_small({"moe.window=2"}), "batch.micro_size = 1 (default)");
}

TEST(DeckRules, WaitForKeysThatAreWrongThemselves) {
  const std::string errors = errors_of_small({"moe.top_k=99", "moe.num_experts=two"});
  EXPECT_EQ(count_errors(errors), 1) << errors;
}

TEST(DeckRules, ADenseModelNeedsNothingOfExperts) {
  EXPECT_EQ(errors_of_small(
                {"moe.num_experts=0", "moe.top_k=1", "moe.window=2", "model.ffn_hidden_size=64"}),
            "");
}

TEST(DeckRules, ABrokenRuleOfDefaultsAloneHasAPlaceToo) {
  std::string dense = kSmallDeck;
  dense.erase(dense.find("[moe]"), dense.find("[batch]") - dense.find("[moe]"));
  EXPECT_SAYS(errors_of(dense),
              "deck.toml:3:2: error: dense layers need model.ffn_hidden_size; here "
              "model.ffn_hidden_size = 0 (default), moe.num_experts = 0 (default)");
}

TEST(DeckRules, KeysOfASectionAskForTheOneThatTurnsItOn) {
  std::string text = kSmallDeck;
  text.erase(text.find("num_experts = 4\n"), 16);
  EXPECT_SAYS(errors_of(text, {"model.ffn_hidden_size=64"}),
              "deck.toml:9:2: error: moe.num_experts is missing");
  EXPECT_SAYS(errors_of_small({"model.rope_scaling.factor=2"}),
              "model.rope_scaling.type is missing");
}

}  // namespace
}  // namespace konclave
