#include "deck/upcycling_rules.hpp"
#include "small_deck.hpp"

#include <algorithm>

namespace konclave {
namespace {

/// The dense model that the small deck's is made of, with changes to it.
std::string fault_of(const std::vector<std::string>& overrides,
                     const std::vector<std::string>& of_dense = {}) {
  std::vector<std::string> dense = {"moe.num_experts=0", "model.ffn_hidden_size=64"};
  dense.insert(dense.end(), of_dense.begin(), of_dense.end());
  return upcycling_fault(read_small(dense, DeckUse::model).definition,
                         read_small(overrides, DeckUse::model).definition);
}

void expect_fault(const std::vector<std::string>& overrides,
                  const std::vector<std::string>& words) {
  const std::string fault = fault_of(overrides);
  EXPECT_EQ(std::count(fault.begin(), fault.end(), '\n'), 0) << fault;
  for (const std::string& word : words) {
    EXPECT_NE(fault.find(word), std::string::npos) << "'" << word << "' is not in: " << fault;
  }
}

TEST(UpcyclingRules, WhatCanBeMadeIsNotRefused) {
  EXPECT_EQ(fault_of({}), "");
  EXPECT_EQ(fault_of({"moe.ffn_hidden_size=64", "moe.top_k=1"}), "");
  EXPECT_EQ(fault_of({"moe.ffn_hidden_size=16", "moe.top_k=4"}), "");
  EXPECT_EQ(fault_of({"moe.score_function=sigmoid", "moe.expert_bias=true"}), "");
  EXPECT_EQ(fault_of({"moe.pre_softmax=true", "moe.capacity_factor=1"}), "");
  EXPECT_EQ(fault_of({"moe.num_experts=8", "moe.num_groups=2", "moe.group_top_k=1"}), "");
}

TEST(UpcyclingRules, WhatSaysTheSameInOtherWordsIsNotRefused) {
  EXPECT_EQ(fault_of({"model.num_kv_heads=4", "model.head_dim=16"}), "");
  EXPECT_EQ(fault_of({"model.sequence_length=64", "model.init_std=1e-6"}), "");
  EXPECT_EQ(fault_of({"precision.compute=fp64"}), "");
}

TEST(UpcyclingRules, SizesMustMakeWholeCopies) {
  expect_fault({"moe.num_experts=0", "model.ffn_hidden_size=64"},
               {"moe.num_experts = 0", "8 would do"});
  expect_fault({"moe.ffn_hidden_size=48"},
               {"moe.ffn_hidden_size = 48", "model.ffn_hidden_size = 64", "16, 32 or 64 would do"});
  expect_fault({"moe.num_experts=5"}, {"moe.num_experts = 5", "multiple of 2",
                                       "moe.ffn_hidden_size = 32", "= 4 or 6 would do"});
  expect_fault({"moe.top_k=3"},
               {"moe.top_k = 3", "multiple of 2", "moe.ffn_hidden_size = 32", "2 or 4 would do"});
  expect_fault({"moe.num_experts=4", "moe.num_groups=4", "moe.group_top_k=2"},
               {"moe.num_groups = 4", "2 copies", "moe.num_groups = 1 or 2 would do"});
}

TEST(UpcyclingRules, RoutersWithoutAFactorAreRefused) {
  expect_fault({"moe.shared_ffn_hidden_size=32"}, {"moe.shared_ffn_hidden_size = 0 would do"});
  expect_fault({"moe.balancing=sinkhorn"}, {"sinkhorn", "moe.balancing = \"aux_loss\" would do"});
  expect_fault({"moe.score_function=sigmoid", "moe.top_k=1", "moe.ffn_hidden_size=64"},
               {"moe.score_function = \"sigmoid\"", "moe.top_k = 2"});
}

TEST(UpcyclingRules, TheRestMustBeTheDenseModel) {
  expect_fault({"model.hidden_size=32"},
               {"model.hidden_size = 32", "64 in the dense model", "model.hidden_size = 64 would"});
  expect_fault({"model.num_kv_heads=2"},
               {"model.num_kv_heads = 2 is 4 in the dense model", "= 4 would do"});
  expect_fault({"model.tie_embeddings=true"}, {"model.tie_embeddings = false would do"});
  expect_fault({"model.rope_theta=500"}, {"model.rope_theta = 500"});
  expect_fault({"model.rope_scaling.type=linear"}, {"model.rope_scaling.type"});
  expect_fault({"model.qkv_bias=true"}, {"model.qkv_bias"});
  expect_fault({"moe.layer_frequency=[1, 0]", "model.ffn_hidden_size=32"},
               {"model.ffn_hidden_size = 32 is 64 in the dense model"});
  EXPECT_EQ(fault_of({"moe.layer_frequency=[1, 0]", "model.ffn_hidden_size=64"}), "");
}

TEST(UpcyclingRules, AllFaultsComeAtOnce) {
  const std::string fault = fault_of({"model.hidden_size=32", "moe.top_k=3", "moe.num_experts=5"});
  EXPECT_EQ(std::count(fault.begin(), fault.end(), '\n'), 2) << fault;
}

}  // namespace
}  // namespace konclave
