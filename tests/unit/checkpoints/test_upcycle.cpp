#include "checkpoints/reader.hpp"
#include "checkpoints/upcycle.hpp"
#include "tests/support/dense_model.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/unit/checkpoints/sample.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace konclave {
namespace {

constexpr std::uint64_t kSeed = 11;
constexpr const char* kLayer = "model.layers.0.";

struct Factors {
  double gate, up, down;
};

TEST(Upcycle, TheFactorMakesUpForTheWeightsOfTheChosen) {
  const auto plan = [](int experts, int top_k, int ffn, UpcycleScaling scaling, auto change) {
    const ModelDefinition dense = small_dense(3, 64, 1, DType::fp32);
    ModelDefinition moe = with_experts(dense, experts, top_k, ffn);
    change(moe.moe);
    return plan_upcycling(dense, moe, scaling);
  };
  const auto expect = [](const Upcycling& how, int granularity, Factors factors) {
    EXPECT_EQ(how.granularity, granularity);
    EXPECT_DOUBLE_EQ(how.gate, factors.gate);
    EXPECT_DOUBLE_EQ(how.up, factors.up);
    EXPECT_DOUBLE_EQ(how.down, factors.down);
  };
  const auto plain = [](MoeConfig&) {};
  const auto pre = [](MoeConfig& moe) { moe.pre_softmax = true; };
  const auto sigmoid = [](MoeConfig& moe) { moe.score_function = "sigmoid"; };
  const auto scaled = [](MoeConfig& moe) { moe.scaling_factor = 2.5; };
  const auto exact = UpcycleScaling::exact;
  expect(plan(4, 2, 64, exact, plain), 1, {1, 1, 1});
  expect(plan(4, 2, 32, exact, plain), 2, {1, 1, 2});
  expect(plan(8, 4, 16, exact, plain), 4, {1, 2, 2});
  expect(plan(16, 8, 8, exact, plain), 8, {1, 2, 4});
  expect(plan(4, 2, 32, exact, sigmoid), 2, {1, 1, 2});
  expect(plan(4, 2, 32, exact, scaled), 2, {1, 0.5, 1.6});
  expect(plan(3, 1, 64, exact, pre), 1, {1, 1, 3});
  expect(plan(8, 4, 16, exact, pre), 4, {1, 2, 4});
  expect(plan(12, 8, 16, exact, pre), 4, {1, 2, 3});
  expect(plan(4, 4, 32, exact, pre), 2, {1, 1, 2});
  expect(plan(8, 4, 16, UpcycleScaling::megatron, pre), 4, {2, 2, 2});
  expect(plan(16, 8, 8, UpcycleScaling::megatron, plain), 8, {2, 2, 2});
  const double root = std::cbrt(2);
  expect(plan(4, 2, 32, UpcycleScaling::megatron, plain), 2, {root, root, root});
}

/// Against plain loops over all indices: expert e is slice e % G of the dense MLP.
void expect_slices(DenseInMemory& dense, const ModelDefinition& moe, const Upcycling& how) {
  const std::int64_t experts = moe.moe.num_experts, ffn = moe.moe.ffn_hidden_size,
                     hidden = moe.model.hidden_size, whole = ffn * how.granularity;
  const std::vector<TensorSource> made = upcycled_tensors(dense.model(), moe, how, kSeed);
  const std::string layer = kLayer;
  const auto values = [&](const std::string& matrix) {
    return filled(find_tensor(made, layer + "moe.experts." + matrix + ".weight"));
  };
  const std::vector<double> gate = values("gate_proj"), up = values("up_proj"),
                            down = values("down_proj"),
                            dense_gate = dense.values(layer + "mlp.gate_proj.weight"),
                            dense_up = dense.values(layer + "mlp.up_proj.weight"),
                            dense_down = dense.values(layer + "mlp.down_proj.weight");
  const auto at = [](const std::vector<double>& of, std::int64_t index) {
    return of.at(static_cast<std::size_t>(index));
  };
  std::int64_t wrong = 0;
  for (std::int64_t e = 0; e < experts; ++e) {
    for (std::int64_t f = 0; f < ffn; ++f) {
      const std::int64_t row = e % how.granularity * ffn + f;
      for (std::int64_t h = 0; h < hidden; ++h) {
        const std::int64_t in = (e * ffn + f) * hidden + h, out = (e * hidden + h) * ffn + f;
        wrong += at(gate, in) != how.gate * at(dense_gate, row * hidden + h) ? 1 : 0;
        wrong += at(up, in) != how.up * at(dense_up, row * hidden + h) ? 1 : 0;
        wrong += at(down, out) != how.down * at(dense_down, h * whole + row) ? 1 : 0;
      }
    }
  }
  EXPECT_EQ(wrong, 0);
}

TEST(Upcycle, ExpertsAreSlicesOfTheDenseMlp) {
  for (const DType type : {DType::bf16, DType::fp32, DType::fp64}) {
    for (const int slices : {1, 2, 4}) {
      SCOPED_TRACE(std::string(name_of(type)) + ", slices: " + std::to_string(slices));
      DenseInMemory dense(small_dense(3, 20, 1, type), type);
      const ModelDefinition moe =
          with_experts(dense.model().definition, 3 * slices, slices, 20 / slices);
      expect_slices(dense, moe, {slices, 1, 2, 4});
    }
  }
}

TEST(Upcycle, LargeMatricesAreReadInStrips) {
  DenseInMemory dense(small_dense(700, 1000, 1, DType::bf16), DType::bf16);
  expect_slices(dense, with_experts(dense.model().definition, 4, 2, 500), {2, 4, 1, 2});
}

TEST(Upcycle, FactorsAreRoundedToTheTypeOnce) {
  DenseInMemory dense(small_dense(3, 4, 1, DType::fp32), DType::fp32);
  const ModelDefinition moe = with_experts(dense.model().definition, 2, 2, 2);
  const auto made = upcycled_tensors(dense.model(), moe, {2, 1, 1.0 / 3, 1}, kSeed);
  const std::vector<double> values =
      filled(find_tensor(made, "model.layers.0.moe.experts.up_proj.weight"));
  const std::vector<double>& source = dense.values("model.layers.0.mlp.up_proj.weight");
  ASSERT_EQ(values.size(), source.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(values[i], static_cast<float>(source[i] * (1.0 / 3)));
  }
}

TEST(Upcycle, SlicesOfACopyHaveTheSameRowInTheRouter) {
  DenseInMemory dense(small_dense(3, 4, 2, DType::bf16), DType::bf16);
  const ModelDefinition moe = with_experts(dense.model().definition, 6, 2, 2);
  const auto made = upcycled_tensors(dense.model(), moe, {2, 1, 1, 1}, kSeed);
  for (const std::string layer : {"0", "1"}) {
    const std::string name = "model.layers." + layer + ".moe.router.weight";
    const TensorSource& router = find_tensor(made, name);
    EXPECT_EQ(router.info.type, DType::fp32) << "routers are never less precise";
    const std::vector<double> rows = filled(router);
    const RandomStream fresh(kSeed, name);  // as the rows of a new model's first experts
    for (std::size_t expert = 0; expert < 6; ++expert) {
      for (std::size_t i = 0; i < 3; ++i) {
        const double expected = moe.model.init_std * fresh.normal(expert / 2 * 3 + i);
        EXPECT_EQ(rows[expert * 3 + i], static_cast<float>(expected));
      }
    }
  }
}

TEST(Upcycle, AllElseIsAsItWas) {
  DenseInMemory dense(small_dense(3, 4, 3, DType::fp32), DType::fp32);
  ModelDefinition moe = with_experts(dense.model().definition, 4, 2, 2);
  moe.moe.layer_frequency = {0, 1, 0};
  const auto made = upcycled_tensors(dense.model(), moe, {2, 1, 1, 2}, kSeed);
  const std::vector<ParameterSpec> specs = parameter_specs(moe);
  ASSERT_EQ(made.size(), specs.size());
  int same = 0;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    EXPECT_EQ(made[i].info.name, kModelGroup + specs[i].name);
    EXPECT_EQ(made[i].info.shape, specs[i].shape);
    if (specs[i].name.find(".moe.") != std::string::npos) continue;
    EXPECT_EQ(filled(made[i]), dense.values(specs[i].name)) << specs[i].name;
    ++same;
  }
  EXPECT_EQ(same, static_cast<int>(dense.model().tensors.size()) - 3);
}

TEST(Upcycle, EveryTensorHasItsUse) {
  const ModelDefinition definition = small_dense(3, 4, 1, DType::fp32);
  const ModelDefinition moe = with_experts(definition, 4, 2, 2);
  const auto expect_refused = [&](auto change, const std::vector<std::string>& words) {
    DenseInMemory dense(definition, DType::fp32);
    change(dense);
    expect_error(
        [&] {
          upcycled_tensors(dense.model(), moe, {2, 1, 1, 2}, kSeed);
        },
        ExitCode::input, words);
  };
  expect_refused(
      [](DenseInMemory& dense) {
        dense.add({"model.more", DType::fp32, {2}});
      },
      {"memory", "model.more", "no place"});
  expect_refused(
      [](DenseInMemory& dense) {
        std::erase_if(dense.model().tensors,
                      [](const TensorInfo& info) { return info.name == "model.norm.weight"; });
      },
      {"memory", "no tensor model.norm.weight"});
  expect_refused(
      [](DenseInMemory& dense) {
        for (TensorInfo& info : dense.model().tensors) {
          if (info.name == "model.layers.0.mlp.down_proj.weight") info.shape = {4, 3};
        }
      },
      {"mlp.down_proj.weight", "(4, 3)", "(3, 4)"});
}

TEST(Upcycle, WritesACheckpointOfStepZero) {
  const TemporaryFolder temporary;
  DenseInMemory dense(small_dense(3, 4, 1, DType::fp32), DType::fp32);
  const ModelDefinition moe = with_experts(dense.model().definition, 4, 2, 2);
  const Upcycling how{2, 1, 1, 2};
  upcycle(dense.model(), moe, how, kSeed, temporary.path("made"), "# the deck\n");
  const Checkpoint checkpoint = Checkpoint::open(temporary.path("made"));
  checkpoint.verify();
  EXPECT_EQ(checkpoint.step(), 0);
  EXPECT_EQ(checkpoint.deck(), "# the deck\n");
  for (const TensorSource& tensor : upcycled_tensors(dense.model(), moe, how, kSeed)) {
    std::vector<std::byte> wanted(static_cast<std::size_t>(tensor.info.bytes()));
    std::vector<std::byte> found(wanted.size());
    tensor.fill(wanted.data());
    checkpoint.read(tensor.info.name, found.data());
    EXPECT_EQ(found, wanted) << tensor.info.name;
  }
  expect_error([&] { upcycle(dense.model(), moe, how, kSeed, temporary.path("made"), ""); },
               ExitCode::io, {"made", "exists already"});
}

}  // namespace
}  // namespace konclave
