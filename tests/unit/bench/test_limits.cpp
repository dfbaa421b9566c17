#include "bench/limits.hpp"
#include "model/flops.hpp"

#include <gtest/gtest.h>

namespace konclave {
namespace {

TEST(ParameterBytes, OfAdamW) {
  // Gradient 4, master weight 8, moments 16; in bf16 the values are written beside them.
  EXPECT_EQ(parameter_bytes(10, DType::fp32, 1).optimizer, 280);
  EXPECT_EQ(parameter_bytes(10, DType::bf16, 1).optimizer, 300);
  EXPECT_EQ(parameter_bytes(10, DType::fp64, 1).optimizer, 560);
}

TEST(ParameterBytes, OfTheExchangeBetweenHolders) {
  EXPECT_EQ(parameter_bytes(10, DType::fp32, 1).exchange, 0);
  EXPECT_EQ(parameter_bytes(10, DType::fp32, 3).exchange, 10 * 2 * (4 + 4));
  EXPECT_EQ(parameter_bytes(10, DType::bf16, 2).exchange, 10 * (4 + 2));
}

TEST(LimitSeconds, AreProductsThenBytes) {
  const MachineLimits limits{200, "some", 10};
  EXPECT_DOUBLE_EQ(limit_seconds(limits, 100, 0), 0.5);
  EXPECT_DOUBLE_EQ(limit_seconds(limits, 100, 5), 1.0);
}

RoutingSize small_routing() {
  return {/*tokens=*/100, /*hidden=*/1000, /*experts=*/4,
          /*top_k=*/2,    DType::bf16,     DType::fp32};
}

TEST(RoutingBytes, CountEveryTokenOnceAndEveryRowTwice) {
  // 100 tokens read, 200 rows written; 200 read, 100 tokens written; 2000 bytes each.
  const double rows = 600.0 * 2000;
  const RoutingBytes bytes = dispatch_bytes(small_routing());
  EXPECT_GT(static_cast<double>(bytes.least), rows);
  EXPECT_LT(static_cast<double>(bytes.least), 1.01 * rows);
  EXPECT_EQ(bytes.moved, bytes.least);
}

TEST(RoutingBytes, OfSeveralRanksAreTheSameAndTheExpertsOfRows) {
  RoutingSize size = small_routing();
  size.is_shifted = true;
  const RoutingBytes alone = dispatch_bytes(small_routing()), shifted = dispatch_bytes(size);
  EXPECT_EQ(shifted.least, alone.least);
  EXPECT_EQ(shifted.moved - alone.moved, 2 * 200 * 4) << "there and back";
}

TEST(RoutingBytes, CountWhatARankSendsToItselfInSeveralRounds) {
  RoutingSize size = small_routing();
  size.copied_rows = 50;
  const RoutingBytes alone = dispatch_bytes(small_routing()), copied = dispatch_bytes(size);
  EXPECT_EQ(copied.least, alone.least);
  // Rows read and written there and back, a value there.
  EXPECT_EQ(copied.moved - alone.moved, 2 * 50 * 2 * 2000 + 50 * 2 * 4);
}

TEST(RoutingBytes, OfThePlanAreItsTables) {
  const RoutingBytes bytes = plan_bytes(small_routing());
  EXPECT_EQ(bytes.least, 4 * (2 * 200 + 100 + 1 + 4 + 1));
  EXPECT_EQ(bytes.moved, bytes.least);
}

TEST(RoutingBytes, OfTheRouterAreThoseOfItsRowsAndWeight) {
  const double rows = 100.0 * 2000, weight = 4.0 * 1000 * 4;
  const RoutingBytes forward = router_forward_bytes(small_routing());
  EXPECT_GT(static_cast<double>(forward.least), rows + weight);
  EXPECT_LT(static_cast<double>(forward.least), 1.1 * (rows + weight));
  // Logits are written and read; the offsets of tokens written.
  EXPECT_EQ(forward.moved - forward.least, 2 * 100 * 4 * 4 + 101 * 4);
  const RoutingBytes backward = router_backward_bytes(small_routing());
  EXPECT_GT(static_cast<double>(backward.least), 3 * rows + 2 * weight);
  EXPECT_LT(static_cast<double>(backward.least), 1.1 * (3 * rows + 2 * weight));
  EXPECT_EQ(backward.moved - backward.least, 3 * 100 * 4 * 4);
}

TEST(RoutingBytes, AreAtMostAThirdAboveTheLeast) {
  for (const RoutingSize& size : {RoutingSize{32'768, 512, 8, 2, DType::bf16, DType::fp32},
                                  RoutingSize{32'768, 512, 8, 2, DType::bf16, DType::fp32, true},
                                  RoutingSize{2048, 1024, 64, 8, DType::bf16, DType::fp32},
                                  RoutingSize{2048, 1024, 64, 8, DType::fp32, DType::fp32}}) {
    for (const RoutingBytes& bytes : {router_forward_bytes(size), router_backward_bytes(size),
                                      plan_bytes(size), dispatch_bytes(size)}) {
      EXPECT_LE(static_cast<double>(bytes.moved), 1.3 * static_cast<double>(bytes.least))
          << size.hidden << ", " << size.experts << ", " << name_of(size.type);
      EXPECT_GE(bytes.moved, bytes.least);
    }
  }
}

ModelDefinition small_model() {
  ModelDefinition definition;
  definition.model.vocab_size = 100;
  definition.model.sequence_length = 16;
  definition.model.hidden_size = 8;
  definition.model.num_layers = 3;
  definition.model.num_heads = 2;
  definition.moe.num_experts = 4;
  definition.moe.ffn_hidden_size = 12;
  return definition;
}

TEST(LayerFlops, AndTheHeadAreTheModel) {
  const ModelDefinition definition = small_model();
  EXPECT_DOUBLE_EQ(3 * layer_flops_per_token(definition) + 6 * 8 * 100,
                   training_flops_per_token(definition));
}

TEST(AttentionFlops, AreThoseOfTheModel) {
  // Forward, and twice that backward; without any weights the model has only attention.
  const ModelDefinition definition = small_model();
  const double tokens = 5 * 16;
  EXPECT_DOUBLE_EQ(3 * attention_forward_flops(5, 16, 2, 4, 4),
                   tokens * 6.0 * definition.model.sequence_length * 8);
}

}  // namespace
}  // namespace konclave
