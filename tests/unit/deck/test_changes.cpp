#include "deck/schema.hpp"
#include "small_deck.hpp"
#include "tests/support/temporary_folder.hpp"

#include <map>
#include <set>

namespace konclave {
namespace {

/// A deck in which no key has its default but those that do not go with others, and every special
/// form occurs.
Deck unusual_deck() {
  return read_small(
      {"run.name=odd \"name\"",
       "run.out=/tmp/a\\b",
       "run.seed=9223372036854775807",
       "run.resume=/saved/step-1",
       "run.time_limit=1 h 3 s",
       "model.vocab_size=300",
       "model.num_layers=3",
       "model.num_kv_heads=2",
       "model.head_dim=6",
       "model.ffn_hidden_size=10",
       "model.norm_eps=3.3e-7",
       "model.rope_theta=1000000",
       "model.rope_scaling={type=\"yarn\", factor=1.1, original_max_position_embeddings=16, "
       "low_freq_factor=2, high_freq_factor=3, beta_fast=31, beta_slow=1.5, attention_factor=0.1}",
       "model.qk_norm=true",
       "model.qkv_bias=true",
       "model.tie_embeddings=true",
       "model.init_std=0.1",
       "moe.top_k=3",
       "moe.layer_frequency=[0, 1, 1]",
       "moe.pre_softmax=true",
       "moe.num_groups=2",
       "moe.group_top_k=2",
       "moe.scaling_factor=2.5",
       "moe.router_dtype=fp64",
       "moe.shared_ffn_hidden_size=24",
       "moe.shared_gate=true",
       "moe.capacity_factor=1.5",
       "moe.pad_to_capacity=true",
       "moe.drop_policy=position",
       "recompute.granularity=full",
       "recompute.modules=[\"moe\", \"layernorm\", \"mlp\"]",
       "recompute.method=block",
       "recompute.layers=2",
       "moe.input_jitter=0.01",
       "moe.force_load_balancing=true",
       "moe.force_bias=-0.5",
       "moe.expert_bias=true",
       "moe.expert_bias_update_rate=0.002",
       "moe.window=microbatch",
       "moe.balancing=[\"global_aux_loss\"]",
       "moe.global_aux_counts=running",
       "moe.aux_loss_coefficients=[0.30000000000000004]",
       "moe.z_loss_coefficient=1e-3",
       "moe.receive_budget=4096",
       "parallel.tp=2",
       "parallel.sp=true",
       "parallel.cp=2",
       "parallel.cp_comm=all_gather",
       "parallel.pp=2",
       "parallel.vpp=2",
       "parallel.vpp_group_size=3",
       "parallel.layout=E|t*2|(t)*1,|L",
       "parallel.ep=2",
       "parallel.etp=2",
       "parallel.order=cp-tp-ep-dp-pp",
       "parallel.grad_reduce=library",
       "fault.nan_budget=2",
       "fault.step_timeout=1 h 3 s",
       "batch.micro_size=2",
       "optimizer.lr=1e-4",
       "optimizer.min_lr=1e-300",
       "optimizer.betas=[0.1, 0.2]",
       "optimizer.eps=1e-9",
       "optimizer.weight_decay=0",
       "optimizer.decay=all",
       "optimizer.clip_norm=0",
       "optimizer.schedule=wsd",
       "optimizer.warmup_steps=2",
       "optimizer.decay_steps=3",
       "precision.compute=fp32",
       "data.files=[\"/b\", \"c\\td\"]",
       "data.split=0.5",
       "data.shuffle=true",
       "eval.interval=5",
       "eval.steps=6",
       "checkpoint.folder=/c",
       "checkpoint.interval=4",
       "checkpoint.keep=5",
       "checkpoint.keep_every=8",
       "checkpoint.load=weights",
       "log.interval=2",
       "log.progress=none",
       "log.trace_steps=[7, 3]",
       "log.per_layer=true",
       "log.tensorboard=false",
       "log.sample_prompt=tab\there # no comment",
       "backends.gemm=reference",
       "backends.grouped_gemm=reference",
       "backends.attention=reference"});
}

/// One with those.
Deck other_unusual_deck() {
  return read_small({"model.num_layers=5", "parallel.pp=3", "parallel.first_stage_layers=1",
                     "parallel.last_stage_layers=2", "moe.dispatcher=allgather",
                     "moe.score_function=sigmoid", "moe.replay=record", "log.trace_steps=2",
                     "precision.compute=bf16", "parallel.grad_wire=bf16",
                     "parallel.distributed_optimizer=true", "optimizer.moments=bf16",
                     "parallel.overlap_grad_reduce=true", "parallel.bucket_size=1000",
                     "parallel.overlap_param_gather=true", "parallel.overlap_tp=true",
                     "parallel.overlap_ep=true"});
}

std::map<std::string, std::string> texts(const Deck& deck) {
  std::map<std::string, std::string> by_key;
  for (const DeckValue& value : deck.values) by_key[value.key] = value.text;
  return by_key;
}

TEST(EffectiveDeck, ReadsBackToTheSameDeck) {
  for (const Deck& deck : {unusual_deck(), other_unusual_deck(), read_small()}) {
    const std::string text = effective_deck(deck);

    const Deck again = read_deck_text(text, "effective.toml");

    EXPECT_EQ(texts(again), texts(deck)) << text;
    EXPECT_TRUE(changed_keys(deck, again).empty());
    EXPECT_EQ(again.run.seed, deck.run.seed);
    EXPECT_EQ(again.run.time_limit, deck.run.time_limit);
    EXPECT_EQ(again.data.files, deck.data.files);
    EXPECT_EQ(again.definition.moe.layer_frequency, deck.definition.moe.layer_frequency);
    EXPECT_EQ(again.definition.moe.window, deck.definition.moe.window);
    EXPECT_EQ(again.definition.moe.aux_loss_coefficients,
              deck.definition.moe.aux_loss_coefficients);
    EXPECT_EQ(again.parallel.layout, deck.parallel.layout);
    EXPECT_EQ(again.parallel.sp, deck.parallel.sp);
    EXPECT_EQ(again.log.trace_steps, deck.log.trace_steps);
    EXPECT_EQ(again.optimizer.min_lr, deck.optimizer.min_lr);
    EXPECT_EQ(again.log.sample_prompt, deck.log.sample_prompt);
    EXPECT_EQ(again.definition.model.rope_scaling.factor,
              deck.definition.model.rope_scaling.factor);
  }
}

TEST(EffectiveDeck, TheUnusualDecksLeaveOnlyRequiredKeysAndChoicesOfOneAtDefaults) {
  Deck defaults;
  const deck::Schema schema(defaults);
  std::map<std::string, std::string> other = texts(other_unusual_deck());
  std::set<std::string> same;
  for (const auto& [key, text] : texts(unusual_deck())) {
    const std::string& usual = schema.find(key)->default_text();
    if (text == usual && other[key] == usual) same.insert(key);
  }
  const std::set<std::string> expected = {"data.kind", "data.tokenizer"};
  EXPECT_EQ(same, expected);
}

TEST(EffectiveDeck, CarriesOriginsAndTheOrderOfTheReference) {
  const TemporaryFolder folder;
  folder.write("deck.toml", kSmallDeck);

  const std::string text = effective_deck(read_deck(folder.path("deck.toml"), {"run.seed=5"}));

  EXPECT_SAYS(text, "# " + folder.path("deck.toml") + ":2\n");
  EXPECT_SAYS(text, "seed = 5 ");
  EXPECT_SAYS(text, "# command line\n");
  EXPECT_SAYS(text, "# default\n");
  std::size_t at = 0;
  for (const char* section : {"\n[run]\n", "\n[model]\n", "\n[model.rope_scaling]\n", "\n[moe]\n",
                              "\n[batch]\n", "\n[optimizer]\n", "\n[precision]\n", "\n[data]\n",
                              "\n[eval]\n", "\n[checkpoint]\n", "\n[log]\n", "\n[backends]\n"}) {
    const std::size_t found = text.find(section);
    ASSERT_NE(found, std::string::npos) << section;
    EXPECT_GE(found, at) << section;
    at = found;
  }
}

TEST(ChangedKeys, AreListedWithBothValuesAndWhetherTheyDefineTheModel) {
  const std::vector<DeckChange> changes = changed_keys(
      read_small(),
      read_small({"run.steps=30", "moe.top_k=3", "moe.window=microbatch", "precision.compute=fp32",
                  "model.sequence_length=16", "run.seed=1234"}));

  std::map<std::string, DeckChange> by_key;
  for (const DeckChange& change : changes) by_key[change.key] = change;
  ASSERT_EQ(by_key.size(), 5U);
  EXPECT_EQ(by_key["run.steps"].before, "20");
  EXPECT_EQ(by_key["run.steps"].after, "30");
  EXPECT_FALSE(by_key["run.steps"].defines_model);
  EXPECT_TRUE(by_key["moe.top_k"].defines_model);
  EXPECT_FALSE(by_key["moe.window"].defines_model) << "a matter of training";
  EXPECT_TRUE(by_key["precision.compute"].defines_model);
  EXPECT_TRUE(by_key["model.sequence_length"].defines_model);
}

TEST(ChangedKeys, AnotherSpellingIsNoChange) {
  const Deck before = read_small({"moe.layer_frequency=1", "optimizer.lr=0.001"});
  const Deck after = read_small({"moe.layer_frequency=[1, 1]", "optimizer.lr=1e-3"});
  EXPECT_TRUE(changed_keys(before, after).empty());
}

}  // namespace
}  // namespace konclave
