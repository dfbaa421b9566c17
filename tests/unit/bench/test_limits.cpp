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

TEST(RoutingBytes, CountEveryRowOnceEachWay) {
  const RoutingSize size{/*tokens=*/100, /*hidden=*/1000, /*experts=*/4, /*top_k=*/2, DType::bf16};
  // 200 rows read and written, 200 read and 100 written, 2000 bytes each; beside them little.
  const double rows = 700.0 * 2000;
  EXPECT_GT(static_cast<double>(dispatch_bytes(size)), rows);
  EXPECT_LT(static_cast<double>(dispatch_bytes(size)), 1.01 * rows);
}

TEST(RoutingBytes, OfTheRouterAreThoseOfItsRowsAndWeight) {
  const RoutingSize size{100, 1000, 4, 2, DType::bf16};
  const double rows = 100.0 * 2000, weight = 4.0 * 1000 * 4;
  const auto forward = static_cast<double>(router_forward_bytes(size));
  EXPECT_GT(forward, rows + weight);
  EXPECT_LT(forward, 1.1 * (rows + weight));
  const auto backward = static_cast<double>(router_backward_bytes(size));
  EXPECT_GT(backward, 3 * rows + 2 * weight);
  EXPECT_LT(backward, 1.1 * (3 * rows + 2 * weight));
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
