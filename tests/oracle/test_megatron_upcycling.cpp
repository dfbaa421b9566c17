// The weights that megatron-core's upcycling makes (make_megatron_upcycling.py) beside
// upcycled_tensors, with its scaling.

#include "tests/support/dense_model.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <fstream>

namespace konclave {
namespace {

using nlohmann::json;

json read_facts() {
  std::ifstream file(std::filesystem::path(KONCLAVE_SOURCE_DIR) /
                     "tests/oracle/data/megatron/upcycling.json");
  return json::parse(file);
}

/// All numbers of nested lists, in order.
std::vector<double> flat(const json& value) {
  if (!value.is_array()) return {value.get<double>()};
  std::vector<double> all;
  for (const json& part : value) {
    const std::vector<double> more = flat(part);
    all.insert(all.end(), more.begin(), more.end());
  }
  return all;
}

/// Beyond a few units in the last place nothing differs: pow is another one on other machines.
void expect_equal(const std::vector<double>& found, const std::vector<double>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) EXPECT_DOUBLE_EQ(found[i], expected[i]) << i;
}

TEST(MegatronUpcycling, Weights) {
  constexpr std::uint64_t kSeed = 5;
  const json facts = read_facts();
  const json& mlp = facts.at("dense");
  const auto hidden = static_cast<int>(mlp.at("down_proj").size());
  const auto whole = static_cast<int>(mlp.at("gate_proj").size());
  DenseInMemory dense(small_dense(hidden, whole, 1, DType::fp64), DType::fp64);
  for (const char* const matrix : {"gate_proj", "up_proj", "down_proj"}) {
    dense.values(std::string("model.layers.0.mlp.") + matrix + ".weight") = flat(mlp.at(matrix));
  }
  for (const json& fact : facts.at("cases")) {
    const json& settings = fact.at("settings");
    SCOPED_TRACE(settings.dump());
    ModelDefinition moe = with_experts(dense.model().definition, settings.at("num_experts"),
                                       settings.at("top_k"), settings.at("ffn_hidden_size"));
    moe.moe.pre_softmax = settings.at("pre_softmax");
    const Upcycling how = plan_upcycling(dense.model().definition, moe, UpcycleScaling::megatron);
    const std::vector<TensorSource> made = upcycled_tensors(dense.model(), moe, how, kSeed);
    const std::string layer = "model.layers.0.moe.";
    for (const char* const matrix : {"gate_proj", "up_proj", "down_proj"}) {
      SCOPED_TRACE(matrix);
      expect_equal(filled(find_tensor(made, layer + "experts." + matrix + ".weight")),
                   flat(fact.at(matrix)));
    }
    const RandomStream fresh(kSeed, layer + "router.weight");
    std::vector<double> rows;
    for (const std::uint64_t row : fact.at("router_rows")) {
      for (int i = 0; i < hidden; ++i) {
        const std::uint64_t index = row * static_cast<std::uint64_t>(hidden);
        rows.push_back(moe.model.init_std * fresh.normal(index + static_cast<std::uint64_t>(i)));
      }
    }
    expect_equal(filled(find_tensor(made, layer + "router.weight")), rows);
  }
}

}  // namespace
}  // namespace konclave
