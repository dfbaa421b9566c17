#include "run/metrics_line.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace konclave {
namespace {

ModelDefinition model_of(const std::vector<int>& layers) {
  ModelDefinition definition;
  definition.model.num_layers = static_cast<int>(layers.size());
  definition.moe.num_experts = 4;
  definition.moe.layer_frequency = layers;
  return definition;
}

LayerMetrics sample_layer() {
  LayerMetrics layer;
  layer.aux_loss = 0.25;
  layer.seq_aux_loss = 0.5;
  layer.z_loss = 0.125;
  layer.entropy = 1.25;
  layer.chosen = {8, 4, 2, 2};
  layer.kept = {5, 4, 2, 1};
  return layer;
}

TEST(OverloadFactor, IsOfTheBusiestRank) {
  const LayerMetrics layer = sample_layer();
  EXPECT_DOUBLE_EQ(layer.overload_factor(1), 1);
  EXPECT_DOUBLE_EQ(layer.overload_factor(2), 9 / 6.0);
  EXPECT_DOUBLE_EQ(layer.overload_factor(4), 5 / 3.0);
  LayerMetrics idle;
  idle.chosen = idle.kept = {0, 0};
  EXPECT_DOUBLE_EQ(idle.overload_factor(2), 1);
}

TEST(MoeLayers, AreNumbersInTheModel) {
  EXPECT_THAT(moe_layers(model_of({0, 1, 1, 0, 1})), testing::ElementsAre(1, 2, 4));
  ModelDefinition dense;
  dense.model.num_layers = 2;
  EXPECT_TRUE(moe_layers(dense).empty());
}

TEST(LayerLines, HaveTheirFiguresAndTheLossesInUse) {
  StepMetrics metrics;
  metrics.layers = {sample_layer()};
  ModelDefinition definition = model_of({0, 1});
  const nlohmann::json lines = layer_lines(metrics, definition, /*ep=*/2);
  EXPECT_EQ(lines, (nlohmann::json::array({{{"layer", 1},
                                            {"aux_loss", 0.25},
                                            {"z_loss", 0.125},
                                            {"entropy", 1.25},
                                            {"load_imbalance", 2.0},
                                            {"dropped_fraction", 0.25},
                                            {"overload_factor", 1.5}}})));
  definition.moe.balancing = {"seq_aux_loss"};
  EXPECT_EQ(layer_lines(metrics, definition, 2)[0].at("seq_aux_loss"), 0.5);
  EXPECT_FALSE(layer_lines(metrics, definition, 2)[0].contains("global_aux_loss"));
  definition.moe.balancing = {"global_aux_loss"};
  EXPECT_EQ(layer_lines(metrics, definition, 2)[0].at("global_aux_loss"), 0.0);
}

TEST(MetricsLine, HasRatesOfTheStep) {
  StepMetrics metrics;
  metrics.loss = 2;
  metrics.tokens = 300;
  StepFacts facts;
  facts.step = 7;
  facts.tokens = 900;
  facts.seconds = 0.5;
  facts.flops = 1e12;
  const nlohmann::json line = metrics_line(facts, metrics);
  EXPECT_EQ(line.at("step"), 7);
  EXPECT_EQ(line.at("tokens"), 900);
  EXPECT_EQ(line.at("tokens_per_second"), 600.0);
  EXPECT_EQ(line.at("tflops"), 2.0);
  EXPECT_FALSE(line.contains("val_loss"));
  facts.validation_loss = 3;
  EXPECT_EQ(metrics_line(facts, metrics).at("val_loss"), 3.0);
}

TEST(Scalars, AreTheMetricsAndThoseOfLayers) {
  const nlohmann::json line = {
      {"step", 3},
      {"loss", 2.5},
      {"lr", 0.5},
      {"grad_norm", 1.5},
      {"memory_bytes", 9},
      {"mfu", nullptr},
      {"layers", {{{"layer", 3}, {"entropy", 1.5}}, {{"layer", 12}, {"entropy", 0.5}}}}};
  EXPECT_THAT(
      scalars_of(line),
      testing::ElementsAre(testing::Pair("loss", 2.5), testing::Pair("lr", 0.5),
                           testing::Pair("grad_norm", 1.5), testing::Pair("layer_03/entropy", 1.5),
                           testing::Pair("layer_12/entropy", 0.5)));
}

}  // namespace
}  // namespace konclave
