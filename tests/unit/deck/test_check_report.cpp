#include "deck/check_report.hpp"
#include "small_deck.hpp"

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
  EXPECT_EQ(count_state_bytes(10, DType::bf16).total(), 10 * (2 + 4 + 4 + 8));
  EXPECT_EQ(count_state_bytes(10, DType::fp32).total(), 10 * (4 + 4 + 8));
  EXPECT_EQ(count_state_bytes(10, DType::fp64).total(), 10 * (8 + 8 + 16));
  EXPECT_EQ(count_state_bytes(10, DType::bf16).weights, 20);
  EXPECT_EQ(count_state_bytes(10, DType::bf16).master_weights, 40);
  EXPECT_EQ(count_state_bytes(10, DType::fp32).master_weights, 0);
}

TEST(CheckReport, IsTheEffectiveDeckWithWhatFollowsFromIt) {
  const Deck deck = read_small({"model.num_layers=4", "moe.layer_frequency=2",
                                "model.ffn_hidden_size=64", "batch.micro_size=2"});

  const std::string report = check_report(deck);

  EXPECT_TRUE(report.starts_with(effective_deck(deck)));
  EXPECT_SAYS(report, "MoE layers              2 of 4: 0 2\n");
  EXPECT_SAYS(report, "tokens per step         128\n");
  EXPECT_SAYS(report, "tokens in all           2,560\n");
  EXPECT_SAYS(report, "micro-batches per step  2\n");
  EXPECT_SAYS(report, "master weights");
  EXPECT_EQ(effective_deck(read_deck_text(report, "report.toml")).empty(), false)
      << "the report is a deck";
}

}  // namespace
}  // namespace konclave
