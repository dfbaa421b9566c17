#include "checkpoints/writer.hpp"
#include "run/compare.hpp"
#include "run/compare_json.hpp"
#include "run/compare_report.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

namespace konclave {
namespace {

struct Line {
  double loss, norm, imbalance = 1;
};

std::string deck_text(const std::string& name, const std::string& compute) {
  return "[run]\nname = \"" + name +
         "\"\n[model]\nvocab_size = 256\nsequence_length = 32\nhidden_size = 64\nnum_layers = 2\n"
         "num_heads = 4\nffn_hidden_size = 32\n[precision]\ncompute = \"" +
         compute + "\"\n";
}

/// A tensor of fp64 values.
struct Values {
  std::string name;
  std::vector<std::int64_t> shape;
  std::vector<double> values;
};

void save(const std::filesystem::path& checkpoints, std::int64_t step,
          const std::vector<Values>& tensors, const std::string& compute = "fp64") {
  CheckpointContent content{
      step, deck_text("saved", compute), {{"step", step}}, {{"host", "x"}}, {}};
  for (const Values& tensor : tensors) {
    content.tensors.push_back({{tensor.name, DType::fp64, tensor.shape}, [&tensor](void* host) {
                                 std::memcpy(host, tensor.values.data(),
                                             tensor.values.size() * sizeof(double));
                               }});
  }
  write_checkpoint(checkpoints, content);
}

std::vector<Values> sample_weights() {
  return {{"model/a", {2, 2}, {1, 2, 3, 4}},
          {"optimizer/exp_avg/a", {2, 2}, {0, 0, 0, 0}},
          {"model/layers.0.moe.experts.up_proj.weight", {3, 1, 2}, {1, 1, 1, 1, 1, 1}}};
}

/// Two runs that a test spoils.
class Compare : public testing::Test {
 protected:
  std::string write_run(const std::string& name, const std::vector<Line>& lines,
                        const std::string& compute = "fp64") const {
    folder_.write(name + "/deck.toml", deck_text(name, compute));
    std::string text;
    int step = 0;
    for (const Line& line : lines) {
      nlohmann::json json = {{"step", ++step},         {"tokens", 128 * step},
                             {"loss", line.loss},      {"lr", 0.1 / step},
                             {"grad_norm", line.norm}, {"aux_loss", 0.0},
                             {"z_loss", 0.0},          {"load_imbalance", line.imbalance},
                             {"seconds", seconds_++}};
      text += json.dump() + "\n";
    }
    folder_.write(name + "/metrics.jsonl", text);
    return folder_.path(name);
  }
  Comparison compare(std::optional<double> tolerance = {}) const {
    return compare_runs(folder_.path("a"), folder_.path("b"), tolerance);
  }
  std::filesystem::path checkpoints(const std::string& run) const {
    return folder_.path(run + "/checkpoints");
  }
  /// Saves two checkpoints of step 2, the second with `b`.
  WeightsComparison compare_tensors(const std::vector<Values>& b,
                                    std::optional<double> tolerance = {}) const {
    save(folder_.path("a"), 2, sample_weights());
    save(folder_.path("b"), 2, b);
    const Comparison result = compare(tolerance);
    EXPECT_EQ(result.within(), result.weights->within());
    return *result.weights;
  }

  const TemporaryFolder folder_;
  mutable int seconds_ = 0;  // the clock never counts
};

const MetricDifference& field(const Comparison& comparison, const std::string& name) {
  for (const MetricDifference& field : comparison.metrics->fields) {
    if (field.name == name) return field;
  }
  throw std::runtime_error("no field " + name);
}

TEST_F(Compare, EqualMetricsAreWithinAnyFigure) {
  write_run("a", {{5, 1}, {4, 2}});
  write_run("b", {{5, 1}, {4, 2}});

  const Comparison result = compare(0.0);

  EXPECT_TRUE(result.within());
  EXPECT_EQ(result.metrics->first_unequal(), 0);
  EXPECT_TRUE(result.decks.empty());
}

TEST_F(Compare, NamesTheStepThatIsNotEqualAndTheStepBeyondTheFigure) {
  write_run("a", {{5, 1}, {4 * (1 + 1e-12), 2}, {3 * (1 + 1e-8), 1}});
  write_run("b", {{5, 1}, {4, 2}, {3, 1}});

  const Comparison result = compare();

  EXPECT_FALSE(result.within());
  EXPECT_EQ(result.metrics->first_unequal(), 2);
  EXPECT_EQ(field(result, "loss").first_exceeded, 3);
  EXPECT_EQ(field(result, "loss").largest_step, 3);
  EXPECT_NEAR(field(result, "loss").largest, 1e-8, 1e-12);
  EXPECT_TRUE(field(result, "grad_norm").within);
  EXPECT_TRUE(compare(1e-7).within());
  EXPECT_EQ(field(compare(0.0), "loss").first_exceeded, 2);
}

TEST_F(Compare, TakesTheFiguresOfTheLooserType) {
  const double losses = 1 + 9e-6, norms = 1 + 9e-5;
  write_run("a", {{5 * losses, norms, 1.5}}, "fp32");
  write_run("b", {{5, 1}}, "fp64");
  EXPECT_TRUE(compare().within());  // the imbalance is shown only

  write_run("a", {{5 * (1 + 2e-5), 1}}, "fp32");
  EXPECT_FALSE(compare().within());
  write_run("a", {{5, 1 + 2e-4}}, "fp32");
  EXPECT_FALSE(compare().within());
  write_run("a", {{5, 1, 1.5}}, "fp64");
  EXPECT_FALSE(compare().within());
}

TEST_F(Compare, JudgesBf16ByTheMeanOfItsLosses) {
  write_run("a", {{5, 1}, {4.009, 7}}, "bf16");
  write_run("b", {{5, 1}, {4, 2}}, "bf16");
  EXPECT_TRUE(compare().within());

  write_run("a", {{5, 1}, {4.011, 7}}, "bf16");
  EXPECT_FALSE(compare().within());
}

TEST_F(Compare, ScheduleMustBeEqual) {
  write_run("a", {{5, 1}, {4, 2}});
  write_run("b", {{5, 1}, {4, 2}});
  std::ofstream(folder_.path("a/metrics.jsonl"), std::ios::app)
      << R"({"step": 3, "loss": 3, "lr": 0.1})"
      << "\n";
  std::ofstream(folder_.path("b/metrics.jsonl"), std::ios::app)
      << R"({"step": 3, "loss": 3, "lr": 0.10000000000000001})"
      << "\n"
      << R"({"step": 4, "loss": 3, "lr)";  // killed here
  EXPECT_TRUE(compare().within());

  std::ofstream(folder_.path("a/metrics.jsonl"), std::ios::app)
      << R"({"step": 4, "loss": 3, "lr": 0.1})"
      << "\n";
  EXPECT_EQ(compare().metrics->only_a, std::vector<std::int64_t>{4});
  std::ofstream(folder_.path("b/metrics.jsonl"), std::ios::app)
      << "\n"
      << R"({"step": 4, "loss": 3, "lr": 0.1000001})"
      << "\n";
  EXPECT_EQ(field(compare(1e-3), "lr").first_exceeded, 4);
}

TEST_F(Compare, AValueThatIsNoNumberOnOneSideIsADifference) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  write_run("a", {{5, nan}});
  write_run("b", {{5, nan}});
  EXPECT_TRUE(compare(0.0).within());

  write_run("b", {{5, 1}});
  const Comparison result = compare(1e9);
  EXPECT_EQ(field(result, "grad_norm").first_exceeded, 1);
  EXPECT_NE(comparison_json(result).dump().find(R"("largest_relative":null)"), std::string::npos);
}

TEST_F(Compare, OfTheLayersTheOneThatDiffersMost) {
  const auto write = [&](const std::string& name, double second, bool layers = true) {
    folder_.write(name + "/deck.toml", deck_text(name, "fp64"));
    nlohmann::json line = {{"step", 1}, {"loss", 2.0}};
    if (layers) {
      line["layers"] = {{{"layer", 0}, {"entropy", 1.0}, {"overload_factor", second}},
                        {{"layer", 1}, {"entropy", second}, {"overload_factor", 1.0}}};
    }
    folder_.write(name + "/metrics.jsonl", line.dump() + "\n");
  };
  write("a", 1.5);
  write("b", 1.25);
  const Comparison result = compare();
  EXPECT_EQ(field(result, "layers.entropy").steps, 1);
  EXPECT_NEAR(field(result, "layers.entropy").largest, 0.2, 1e-12);
  EXPECT_FALSE(result.within());
  EXPECT_THROW(field(result, "layers.overload_factor"), std::runtime_error);
  EXPECT_THROW(field(result, "layers.z_loss"), std::runtime_error);
  write("b", 1.5 * (1 + 1e-12));
  EXPECT_TRUE(compare().within());
  EXPECT_FALSE(compare(0.0).within());
  write("b", 1.25, /*layers=*/false);
  EXPECT_TRUE(compare().within()) << "one side alone has layers";
}

TEST_F(Compare, WhatCannotBeComparedIsAnInputError) {
  write_run("a", {{5, 1}});
  expect_error([&] { compare(); }, ExitCode::input, {folder_.path("b")});
  write_run("b", {});
  expect_error([&] { compare(); }, ExitCode::input, {"no step in common"});
}

TEST_F(Compare, EqualTensors) {
  const WeightsComparison result = compare_tensors(sample_weights(), 0.0);

  EXPECT_TRUE(result.within());
  EXPECT_EQ(result.step_a, 2);
  EXPECT_FALSE(result.first_unequal);
  ASSERT_EQ(result.groups.size(), 2u);
  EXPECT_EQ(result.groups[0].equal, 2);
}

TEST_F(Compare, NamesTheFirstTensorBeyondItsFigureElementAndExpert) {
  auto other = sample_weights();
  other[0].values[3] *= 1 + 1e-12;
  other[2].values = {1, 1, 1 + 1e-6, 1, 1, 1.5};
  const WeightsComparison result = compare_tensors(other);

  EXPECT_FALSE(result.within());
  EXPECT_EQ(result.first_unequal->name, "model/a");
  ASSERT_TRUE(result.first_exceeded);
  EXPECT_EQ(result.first_exceeded->name, "model/layers.0.moe.experts.up_proj.weight");
  EXPECT_EQ(result.first_exceeded->at, (std::vector<std::int64_t>{2, 0, 1}));
  EXPECT_EQ(result.first_exceeded->expert, 2);
  EXPECT_DOUBLE_EQ(result.first_exceeded->b, 1.5);
  EXPECT_NEAR(result.first_exceeded->error, 0.5 / std::sqrt(5 + 2.25), 1e-6);
  EXPECT_NEAR(result.first_exceeded->expert_error, 0.5 / std::sqrt(1 + 2.25), 1e-12);
}

TEST_F(Compare, MomentsAreJudgedOnlyWhenAllIsToBeEqual) {
  auto other = sample_weights();
  other[1].values[2] = -0.0;
  EXPECT_TRUE(compare_tensors(other).within());
  EXPECT_EQ(compare(0.0).weights->first_exceeded->name, "optimizer/exp_avg/a");
}

TEST_F(Compare, ATensorOfTwoPiecesIsComparedToItsEnd) {
  const std::int64_t size = (std::int64_t{1} << 19) + 3;
  std::vector<Values> one = {{"model/large", {size}, std::vector<double>(std::size_t(size), 1)}};
  auto other = one;
  other[0].values.back() = 2;
  save(folder_.path("a"), 1, one);
  save(folder_.path("b"), 1, other);

  EXPECT_EQ(compare().weights->first_exceeded->at, std::vector<std::int64_t>{size - 1});
}

TEST_F(Compare, TensorsThatOneSideLacks) {
  auto other = sample_weights();
  other.erase(other.begin() + 1);
  WeightsComparison result = compare_tensors(other);
  EXPECT_TRUE(result.within()) << "no moments at all: a converted model";
  EXPECT_EQ(result.only_a, std::vector<std::string>{"optimizer/exp_avg/a"});
  EXPECT_FALSE(compare(0.0).within());

  other = sample_weights();
  other.pop_back();
  EXPECT_FALSE(compare_tensors(other).within());

  other = sample_weights();
  other[0].shape = {4, 1};
  result = compare_tensors(other);
  EXPECT_FALSE(result.within());
  EXPECT_EQ(result.other_shape, std::vector<std::string>{"model/a is (2, 2) and (4, 1)"});
}

TEST_F(Compare, TakesTheNewestGoodCheckpointsOfTheSameStep) {
  for (const char* run : {"a", "b"}) {
    write_run(run, {{5, 1}});
    for (const int step : {1, 2, 3}) save(checkpoints(run), step, sample_weights());
  }
  save(checkpoints("a"), 4, sample_weights());
  EXPECT_EQ(compare().weights->step_b, 3);

  std::filesystem::resize_file(checkpoints("b") / "step-00000003" / "tensors.h5", 2000);
  const Comparison result = compare();
  EXPECT_EQ(result.weights->step_a, 2);
  EXPECT_EQ(result.remarks.size(), 1u);
}

TEST_F(Compare, WithoutACommonCheckpointMetricsAlone) {
  write_run("a", {{5, 1}});
  write_run("b", {{5, 1}});
  save(checkpoints("a"), 1, sample_weights());
  const Comparison result = compare();
  EXPECT_TRUE(result.within());
  EXPECT_FALSE(result.weights);
  EXPECT_TRUE(comparison_json(result)["weights"].is_null());
  EXPECT_NE(describe_comparison(result).find("weights are not compared"), std::string::npos);
}

TEST_F(Compare, TwoSingleCheckpointsMayBeOfDifferentSteps) {
  save(folder_.path("x"), 1, sample_weights());
  save(folder_.path("x"), 30, sample_weights());
  const Comparison result =
      compare_runs(folder_.path("x/step-00000001"), folder_.path("x/step-00000030"), {});
  EXPECT_TRUE(result.within());
  EXPECT_TRUE(result.late());
  EXPECT_FALSE(result.metrics);
  EXPECT_NE(describe_comparison(result).find("metrics are not compared"), std::string::npos);
}

}  // namespace
}  // namespace konclave
