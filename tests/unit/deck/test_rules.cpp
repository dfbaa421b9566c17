#include "deck/schema.hpp"
#include "small_deck.hpp"

#include <map>

namespace konclave {
namespace {

/// For each rule a deck that breaks it, as changes to the small deck.
const std::map<std::string, std::vector<std::string>> kBroken = {
    {"model.num_heads must be a multiple of model.num_kv_heads", {"model.num_kv_heads=3"}},
    {"without model.head_dim, model.hidden_size must be a multiple of model.num_heads",
     {"model.hidden_size=66"}},
    {"the size of a head must be even, because the rotary embedding turns pairs",
     {"model.head_dim=5"}},
    {"llama3 and yarn need model.rope_scaling.original_max_position_embeddings",
     {"model.rope_scaling.type=yarn"}},
    {"model.rope_scaling.low_freq_factor must be below model.rope_scaling.high_freq_factor",
     {"model.rope_scaling.type=none", "model.rope_scaling.low_freq_factor=4"}},
    {"model.rope_scaling.beta_slow must be below model.rope_scaling.beta_fast",
     {"model.rope_scaling.type=none", "model.rope_scaling.beta_fast=1"}},
    {"a list moe.layer_frequency must have model.num_layers entries",
     {"moe.layer_frequency=[1, 1, 1]"}},
    {"with experts, moe.layer_frequency must leave at least one MoE layer",
     {"moe.layer_frequency=[0, 0]", "model.ffn_hidden_size=8"}},
    {"dense layers need model.ffn_hidden_size", {"moe.layer_frequency=2"}},
    {"experts need moe.ffn_hidden_size", {"moe.ffn_hidden_size=0"}},
    {"moe.top_k must not exceed moe.num_experts", {"moe.top_k=5"}},
    {"training with moe.top_k = 1 needs moe.pre_softmax = true: a softmax over the one chosen "
     "expert is constant 1, and the router would get no gradient",
     {"moe.top_k=1"}},
    {"\"none\" in moe.balancing must stand alone",
     {"moe.balancing=[\"none\", \"aux_loss\"]", "moe.aux_loss_coefficients=1"}},
    {"moe.aux_loss_coefficients must have one coefficient for each loss that moe.balancing lists",
     {"moe.balancing=aux_loss"}},
    {"moe.num_experts must be a multiple of parallel.ep", {"parallel.ep=3"}},
    {"parallel.ep above 1 needs experts, moe.num_experts above 0",
     {"parallel.ep=2", "moe.num_experts=0", "model.ffn_hidden_size=64"}},
    {"parallel.order must name every axis larger than 1: ep and dp when parallel.ep is above 1",
     {"parallel.ep=2", "parallel.order=tp-cp-dp-pp"}},
    {"batch.global_size must be a multiple of batch.micro_size", {"batch.micro_size=3"}},
    {"batch.micro_size must be a multiple of moe.window", {"moe.window=2"}},
    {"a micro-batch, batch.micro_size * model.sequence_length, must stay below 2^31 tokens",
     {"batch.global_size=1048576", "batch.micro_size=1048576", "model.sequence_length=2048"}},
    {"optimizer.min_lr must not exceed optimizer.lr", {"optimizer.min_lr=1"}},
    {"optimizer.warmup_steps must not exceed run.steps", {"optimizer.warmup_steps=21"}},
    {"with schedule \"wsd\", optimizer.warmup_steps + optimizer.decay_steps must not exceed "
     "run.steps",
     {"optimizer.schedule=wsd", "optimizer.warmup_steps=11", "optimizer.decay_steps=10"}},
    {"text as bytes needs model.vocab_size of at least 256", {"model.vocab_size=255"}},
    {"validation (eval.interval above 0) needs held-out text: data.kind = \"text\" and data.split "
     "below 1",
     {"eval.interval=1", "data.split=1"}},
    {"log.sample_prompt needs data.kind = \"text\": tokens of other data have no spelling",
     {"log.sample_prompt=Once", "data.kind=tokens"}},
    {"checkpoint.keep_every must be a multiple of checkpoint.interval",
     {"checkpoint.interval=2", "checkpoint.keep_every=3"}},
};

TEST(DeckRules, EachHasADeckThatBreaksItAndOnlyIt) {
  Deck defaults;
  const deck::Schema schema(defaults);
  for (const deck::Rule& rule : schema.rules()) {
    const auto broken = kBroken.find(rule.sentence);
    ASSERT_NE(broken, kBroken.end()) << "no bad case for: " << rule.sentence;

    const std::string errors = errors_of_small(broken->second);

    EXPECT_SAYS(errors, rule.sentence);
    EXPECT_EQ(count_errors(errors), 1) << errors;
    for (const std::string& key : rule.keys) EXPECT_SAYS(errors, key + " = ");
    const bool matters_to_model = !errors_of_small(broken->second, DeckUse::model).empty();
    EXPECT_EQ(matters_to_model, rule.use == DeckUse::model) << rule.sentence;
  }
  EXPECT_EQ(schema.rules().size(), kBroken.size());
  EXPECT_EQ(errors_of_small({}), "");
}

TEST(DeckRules, NameTheValuesAndPlacesOfAllTheirKeys) {
  const std::string errors = errors_of(kSmallDeck + "[optimizer]\nmin_lr = 0.5\nlr = 0.25\n");
  EXPECT_SAYS(errors,
              "deck.toml:17:10: error: optimizer.min_lr must not exceed optimizer.lr; here "
              "optimizer.min_lr = 0.5, optimizer.lr = 0.25\n");
  EXPECT_SAYS(errors, "deck.toml:18:6: note: optimizer.lr = 0.25\n");
  EXPECT_SAYS(errors_of_small({"model.num_kv_heads=3"}),
              "deck.toml:8:13: error: model.num_heads must be a multiple of model.num_kv_heads; "
              "here model.num_heads = 4, model.num_kv_heads = 3\n");
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
