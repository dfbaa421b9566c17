#include "tests/support/expect_error.hpp"
#include "tests/unit/model/tiny_model.hpp"
#include "tests/unit/model/workbench.hpp"

#include <cmath>
#include <map>
#include <string>
#include <utility>

namespace konclave {
namespace {

/// Values of all parameters of a freshly initialised model.
std::map<std::string, std::vector<double>> initial_values(const ModelDefinition& definition,
                                                          std::uint64_t seed,
                                                          bool backwards = false) {
  Workbench bench;
  Transformer model(definition, Groups::alone(), {&bench.weights, nullptr});
  std::vector<Parameter*> parameters;
  model.visit_parameters([&](Parameter& parameter) { parameters.push_back(&parameter); });
  if (backwards) {
    std::reverse(parameters.begin(), parameters.end());
    for (Parameter* parameter : parameters) parameter->initialise(bench.exec, seed);
  } else {
    model.initialise(bench.exec, seed);
  }
  std::map<std::string, std::vector<double>> values;
  for (const Parameter* parameter : parameters) {
    values[parameter->name()] = to_doubles(bench.exec, parameter->value());
  }
  return values;
}

/// Mean and standard deviation.
std::pair<double, double> moments(const std::vector<double>& values) {
  double sum = 0, squares = 0;
  for (const double value : values) {
    sum += value;
    squares += value * value;
  }
  const auto size = static_cast<double>(values.size());
  return {sum / size, std::sqrt(squares / size - sum * sum / size / size)};
}

TEST(Initialisation, IsKeyedByNameAndIndex) {
  const auto values = initial_values(tiny_model(), 7);
  EXPECT_EQ(initial_values(tiny_model(), 7, /*backwards=*/true), values);
  for (const char* name : {"lm_head.weight", "model.layers.1.moe.experts.up_proj.weight"}) {
    const RandomStream stream(7, name);
    std::vector<double> expected;
    for (std::uint64_t i = 0; i < values.at(name).size(); ++i) {
      expected.push_back(0.02 * stream.normal(i));
    }
    EXPECT_EQ(values.at(name), expected);
  }
  // Whatever else the model holds.
  ModelDefinition larger = tiny_model();
  larger.model.vocab_size += 3;
  larger.moe.layer_frequency = {1, 1};
  const auto others = initial_values(larger, 7);
  EXPECT_EQ(others.at("model.layers.1.moe.router.weight"),
            values.at("model.layers.1.moe.router.weight"));
  std::vector<double> head = others.at("lm_head.weight");
  head.resize(values.at("lm_head.weight").size());
  EXPECT_EQ(head, values.at("lm_head.weight"));
}

TEST(Initialisation, DiffersByNameAndSeed) {
  const auto values = initial_values(tiny_model(), 7), others = initial_values(tiny_model(), 8);
  std::map<double, std::string> first;
  for (const ParameterSpec& spec : parameter_specs(tiny_model())) {
    if (spec.init_std == 0) continue;
    EXPECT_NE(values.at(spec.name), others.at(spec.name)) << spec.name;
    // In units of the spread, the first values of two parameters are different draws.
    const double draw = std::round(values.at(spec.name)[0] / spec.init_std * 1e9);
    EXPECT_TRUE(first.emplace(draw, spec.name).second) << spec.name << " and " << first[draw];
  }
}

/// Norms are 1, biases 0, matrices normal; those that write to the residual stream are smaller by
/// sqrt(2 layers).
TEST(Initialisation, HasTheRightSpread) {
  ModelDefinition definition = tiny_model();
  definition.model.hidden_size = 96;
  definition.model.head_dim = 48;
  definition.model.ffn_hidden_size = 128;
  definition.model.vocab_size = 200;
  definition.moe.ffn_hidden_size = 64;
  definition.moe.num_experts = 64;
  definition.model.init_std = 0.05;
  const auto ends_with = [](const std::string& name, const std::string& end) {
    return name.ends_with(end);
  };
  for (const auto& [name, values] : initial_values(definition, 1)) {
    const bool norm = ends_with(name, "norm.weight"), bias = ends_with(name, ".bias");
    if (norm || bias) {
      EXPECT_EQ(values, std::vector<double>(values.size(), norm ? 1 : 0)) << name;
      continue;
    }
    const bool output = ends_with(name, "o_proj.weight") || ends_with(name, "down_proj.weight");
    const double expected = output ? 0.05 / 2 : 0.05;
    const auto [mean, spread] = moments(values);
    const double error = expected / std::sqrt(static_cast<double>(values.size()));
    EXPECT_NEAR(mean, 0, 4 * error) << name;
    EXPECT_NEAR(spread, expected, 4 * error) << name;
  }
}

TEST(Initialisation, IsRoundedToTheTypeOfTheWeights) {
  const auto wide = initial_values(tiny_model(DType::fp64), 7);
  const auto narrow = initial_values(tiny_model(DType::bf16), 7);
  for (const auto& [name, values] : wide) {
    EXPECT_TRUE(close(narrow.at(name), values, tolerance(DType::bf16))) << name;
  }
  EXPECT_NE(narrow.at("lm_head.weight"), wide.at("lm_head.weight"));
}

TEST(Parameter, WithoutStorageIsDescribedOnly) {
  const Parameter parameter({"some.weight", {3, 5}, DType::bf16, 0.02}, {});
  EXPECT_EQ(parameter.size(), 15);
  EXPECT_TRUE(parameter.value().empty());
  EXPECT_TRUE(parameter.grad().empty());
  EXPECT_EQ(parameter.gemm_shape(GemmKind::forward),
            (GemmShape{GemmKind::forward, 3, 5, DType::bf16, DType::bf16, false}));
  EXPECT_EQ(parameter.gemm_shape(GemmKind::weight_gradient),
            (GemmShape{GemmKind::weight_gradient, 3, 5, DType::bf16, DType::fp32, true}));
}

/// Offers that want weights widened, in one form for all kinds of products, or in one for each.
WeightForm one_form(const GemmShape& shape) {
  return {"test.wide", DType::fp64, std::int64_t{shape.out} * shape.in + 1};
}
WeightForm form_by_kind(const GemmShape& shape) {
  WeightForm form = one_form(shape);
  if (shape.kind == GemmKind::forward) form.layout = "test.wide_forward";
  return form;
}
WeightForm form_of_forward(const GemmShape& shape) {
  return shape.kind == GemmKind::forward ? one_form(shape) : WeightForm();
}
void widen(const ExecSpace& exec, const GemmShape& shape, const AnyIn& rows, std::int64_t first,
           const AnyView& to) {
  const AnyView form(to.type(), to.data(), {shape.out, shape.in, 1}, 2);
  ops::cast(exec, rows, form.slice(first, rows.extent(0)));
}
OpTable packing_table(WeightForm (*form)(const GemmShape&)) {
  OpTable table;
  table.gemm.push_back({.backend = "test",
                        .refuses = [](const GemmShape&) { return std::string(); },
                        .workspace = nullptr,
                        .run = nullptr,
                        .packing = {form, &widen}});
  table.grouped_gemm.push_back({.backend = "test",
                                .refuses = [](const GroupedGemmShape&) { return std::string(); },
                                .workspace = nullptr,
                                .run = nullptr,
                                .packing = {form, &widen}});
  return table;
}

TEST(PackedForms, AreSharedByProductsThatWantTheSame) {
  Workbench bench;
  Parameter parameter({"some.weight", {2, 3}, DType::fp32, 0.02}, bench.storage());
  parameter.initialise(bench.exec, 1);
  Operations operations(packing_table(&one_form), {}, bench.account);

  parameter.prepare(bench.exec, operations, 0);

  const PreparedWeight &forward = parameter.prepared(GemmKind::forward),
                       &backward = parameter.prepared(GemmKind::data_gradient);
  EXPECT_EQ(forward.packed.data(), backward.packed.data());
  EXPECT_EQ(forward.layout, "test.wide");
  EXPECT_EQ(forward.packed.extent(1), 7);
  EXPECT_EQ(forward.weight.data(), parameter.value().data());
}

TEST(PackedForms, KeepTheirMemoryAndFollowTheValues) {
  constexpr int kExperts = 2;
  Workbench bench;
  Parameter parameter({"some.weight", {kExperts, 2, 3}, DType::fp32, 0.02}, bench.storage());
  Operations operations(packing_table(&form_by_kind), {}, bench.account);
  const void* memory[2] = {};
  for (const double value : {1.0, 2.0}) {
    bench.set(parameter.value(), value);
    parameter.prepare(bench.exec, operations, kExperts);
    const PreparedWeight &forward = parameter.prepared(GemmKind::forward),
                         &backward = parameter.prepared(GemmKind::data_gradient);
    EXPECT_NE(forward.packed.data(), backward.packed.data());
    for (const PreparedWeight* weight : {&forward, &backward}) {
      for (int e = 0; e < kExperts; ++e) {
        std::vector<double> packed = to_doubles(bench.exec, weight->matrix(e).packed);
        packed.pop_back();
        EXPECT_EQ(packed, std::vector<double>(6, value));
      }
    }
    if (value == 2) {
      EXPECT_EQ(memory[0], forward.packed.data());
      EXPECT_EQ(memory[1], backward.packed.data());
    }
    memory[0] = forward.packed.data();
    memory[1] = backward.packed.data();
  }
}

ParameterSpec only_multiplied(DType type) {
  return {.name = "some.weight",
          .shape = {2, 3},
          .type = type,
          .init_std = 0.5,
          .only_multiplied = true};
}

TEST(ValuesWithoutMemory, AreWhereTheGradientWillBe) {
  Workbench bench;
  Operations operations(packing_table(&form_by_kind), {}, bench.account);
  Parameter parameter(only_multiplied(DType::bf16), bench.storage());
  parameter.initialise(bench.exec, 1);
  const std::vector<double> values = to_doubles(bench.exec, parameter.value());
  parameter.prepare(bench.exec, operations, 0);
  EXPECT_FALSE(parameter.keeps_values());
  EXPECT_EQ(to_doubles(bench.exec, parameter.value()), values);
  EXPECT_EQ(parameter.value().data(), parameter.grad().data());

  parameter.restart_gradient();
  EXPECT_TRUE(parameter.has_value()) << "nothing was written yet";
  EXPECT_FALSE(parameter.next_gradient_shape().accumulate);
  EXPECT_TRUE(parameter.next_gradient_shape().accumulate);
  expect_error([&] { parameter.value(); }, ExitCode::internal, {"some.weight"});
  std::vector<double> packed = to_doubles(bench.exec, parameter.value_in_any_form());
  packed.pop_back();
  EXPECT_EQ(packed, values);

  bench.set(parameter.new_value(), 3);
  EXPECT_EQ(to_doubles(bench.exec, parameter.value()), std::vector<double>(6, 3));
  EXPECT_EQ(to_doubles(bench.exec, parameter.grad_to_add_to(bench.exec)),
            std::vector<double>(6, 0));
  EXPECT_FALSE(parameter.has_value());
}

/// Values that are read as they are, wide ones, those of a model that is not trained, and those
/// that some product wants as they are.
TEST(ValuesWithoutMemory, AreNoOthers) {
  struct Case {
    const char* what;
    bool only_multiplied, trained;
    DType type;
    WeightForm (*form)(const GemmShape&);
  };
  for (const Case& c : {Case{"read", false, true, DType::bf16, &form_by_kind},
                        Case{"not trained", true, false, DType::bf16, &form_by_kind},
                        Case{"wide", true, true, DType::fp32, &form_by_kind},
                        Case{"used as stored", true, true, DType::bf16, &form_of_forward}}) {
    SCOPED_TRACE(c.what);
    Workbench bench;
    Operations operations(packing_table(c.form), {}, bench.account);
    ParameterSpec spec = only_multiplied(c.type);
    spec.only_multiplied = c.only_multiplied;
    Parameter parameter(spec, {&bench.weights, c.trained ? &bench.gradients : nullptr});
    parameter.initialise(bench.exec, 1);
    const std::vector<double> values = to_doubles(bench.exec, parameter.value());
    parameter.prepare(bench.exec, operations, 0);
    EXPECT_TRUE(parameter.keeps_values());
    EXPECT_NE(parameter.value().data(), parameter.grad().data());
    if (c.trained) {
      parameter.restart_gradient();
      bench.set(parameter.grad_to_add_to(bench.exec), 1);
    }
    EXPECT_EQ(to_doubles(bench.exec, parameter.value()), values);
    EXPECT_EQ(parameter.prepared(GemmKind::forward).weight.data(), parameter.value().data());
  }
}

}  // namespace
}  // namespace konclave
