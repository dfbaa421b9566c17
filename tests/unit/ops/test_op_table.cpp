// The choice of backends, with made-up offers, and what is done before one is called.

#include "ops/backend_list.hpp"
#include "ops/op_table.hpp"
#include "tests/support/close.hpp"
#include "tests/support/expect_error.hpp"
#include "tests/support/tensors.hpp"
#include "tests/support/tolerance.hpp"

#include <gtest/gtest.h>

namespace konclave {
namespace {

std::string accepts(const GemmShape&) { return ""; }
std::string refuses_doubles(const GemmShape& shape) {
  return shape.type == DType::fp64 ? "knows no doubles" : "";
}

/// Offers that can be chosen, not run.
OpTable made_up_table() {
  OpTable table;
  table.gemm.push_back({"fast", &refuses_doubles, nullptr, nullptr});
  table.gemm.push_back({"plain", &accepts, nullptr, nullptr});
  return table;
}

GemmShape product(DType type) { return {GemmKind::forward, 3, 2, type, type, false}; }

class Choice : public testing::Test {
 protected:
  MemoryAccount account_;
};

TEST_F(Choice, TakesTheFirstThatAcceptsAndKeepsTheReasonsOfTheOthers) {
  Operations operations(made_up_table(), {}, account_);

  EXPECT_EQ(operations.choose(product(DType::fp32)).backend, "fast");
  EXPECT_EQ(operations.choose(product(DType::fp64)).backend, "plain");
  EXPECT_EQ(operations.choose(product(DType::fp64)).backend, "plain");

  ASSERT_EQ(operations.choices().size(), 2U) << "one for each problem";
  EXPECT_TRUE(operations.choices()[0].refusals.empty());
  EXPECT_EQ(operations.choices()[1].refusals, std::vector<std::string>{"fast: knows no doubles"});
}

TEST_F(Choice, ABackendThatTheDeckInsistsOnMustAccept) {
  BackendConfig config;
  config.gemm = "fast";
  Operations operations(made_up_table(), config, account_);

  EXPECT_EQ(operations.choose(product(DType::fp32)).backend, "fast");
  expect_error([&] { operations.choose(product(DType::fp64)); }, ExitCode::deck,
               {"insists on fast", "knows no doubles"});
}

TEST_F(Choice, ABackendThatIsNotBuiltIsNamedWithThoseThatAre) {
  BackendConfig config;
  config.gemm = "quick";
  expect_error([&] { Operations operations(made_up_table(), config, account_); }, ExitCode::deck,
               {"quick", "fast, plain"});
}

TEST_F(Choice, AProductIsNotGivenAFormThatItDoesNotWant) {
  const ExecSpace exec;
  Tensors memory(exec);
  OpTable table = made_up_table();
  table.gemm.front().packing.form = [](const GemmShape& shape) {
    return WeightForm{"fast.packed", shape.type, 6};
  };
  Operations operations(table, {}, account_);
  const PreparedWeight weight{memory.random("w", DType::fp32, 3, 2)};

  expect_error(
      [&] {
        operations.gemm(exec, product(DType::fp32), {{}, &weight, {}, {}, {}});
      },
      ExitCode::internal, {"fast.packed", "forward (3, 2)"});
}

TEST_F(Choice, AProductThatWantsAWeightAsStoredIsNotGivenAPackedOneAlone) {
  const ExecSpace exec;
  Operations operations(made_up_table(), {}, account_);
  const PreparedWeight weight{AnyIn(DType::fp32, nullptr, {3, 2, 1}, 2), {}, "fast.packed"};

  expect_error(
      [&] {
        operations.gemm(exec, product(DType::fp32), {{}, &weight, {}, {}, {}});
      },
      ExitCode::internal, {"fast.packed", "stored"});
}

TEST_F(Choice, RowsArePackedWhereEveryLayoutCanBeCut) {
  const ExecSpace exec;
  Tensors memory(exec);
  OpTable table = made_up_table();
  table.gemm.front().packing = {
      [](const GemmShape& shape) {
        return WeightForm{"fast.packed", shape.type, std::int64_t{shape.out} * shape.in};
      },
      [](const ExecSpace&, const GemmShape&, const AnyIn&, std::int64_t, const AnyView&) {}};
  Operations operations(table, {}, account_);
  const GemmShape shape{GemmKind::forward, 70, 2, DType::fp32, DType::fp32, false};
  const AnyView rows = memory.random("w", DType::fp32, 70, 2),
                form = memory.poisoned(DType::fp32, 140);
  const auto pack = [&](std::int64_t first, std::int64_t count, const AnyView& to) {
    operations.pack(exec, shape, 0, rows.slice(first, count), first, to);
  };

  pack(0, 70, form);
  pack(32, 32, form);
  pack(64, 6, form);

  expect_error([&] { pack(16, 32, form); }, ExitCode::internal, {"rows 16 to 48", "(70, 2)"});
  expect_error([&] { pack(32, 16, form); }, ExitCode::internal, {"rows 32 to 48"});
  expect_error([&] { pack(32, 32, form.slice(0, 64)); }, ExitCode::internal, {"rows 32 to 64"});
}

TEST(PreparedRows, AreCutWhereEveryLayoutCanBeCut) {
  const ExecSpace exec;
  Tensors memory(exec);
  const AnyView w = memory.random("w", DType::fp32, 600, 2);
  const PreparedWeight weight{w, memory.random("form", DType::fp32, 1, 1200), "some.form"};

  const PreparedWeight rows = weight.rows(256, 344).rows(256, 88);

  EXPECT_EQ(rows.first_row, 512);
  EXPECT_EQ(rows.weight.extent(0), 88);
  EXPECT_EQ(rows.weight.data(), AnyIn(w).slice(512, 88).data());
  EXPECT_EQ(rows.packed.data(), weight.packed.data());
  expect_error([&] { weight.rows(128, 128); }, ExitCode::internal, {"256"});
}

/// One local expert goes to `gemm`, with the same result.
TEST_F(Choice, OneExpertIsAPlainProduct) {
  const ExecSpace exec;
  Tensors memory(exec);
  Operations operations(built_backends(), {}, account_);
  constexpr std::int64_t kRows = 5, kOut = 4, kIn = 3;
  const AnyView x = memory.random("x", DType::fp64, kRows, kIn);
  const AnyView dy = memory.random("dy", DType::fp64, kRows, kOut);
  const AnyView w = memory.random("w", DType::fp64, 1, kOut, kIn);
  const auto offsets = memory.integers({0, kRows});

  for (const GemmKind kind :
       {GemmKind::forward, GemmKind::data_gradient, GemmKind::weight_gradient}) {
    const GemmShape shape{kind, kOut, kIn, DType::fp64, DType::fp64, false};
    ASSERT_TRUE(operations.form(shape, /*experts=*/1).as_stored());
    const PreparedWeight weight{w};
    const bool of_weight = kind == GemmKind::weight_gradient;
    const AnyIn a = kind == GemmKind::forward ? x : dy;
    const AnyIn b = of_weight ? AnyIn(x) : AnyIn();
    const std::int64_t rows = of_weight ? kOut : kRows;
    const std::int64_t columns = kind == GemmKind::forward ? kOut : kIn;
    const AnyView plain = memory.poisoned(DType::fp64, rows, columns);
    const AnyView grouped = memory.poisoned(DType::fp64, rows, columns);
    const AnyView out(DType::fp64, grouped.data(),
                      of_weight ? std::array<std::int64_t, 3>{1, rows, columns}
                                : std::array<std::int64_t, 3>{rows, columns, 1},
                      of_weight ? 3 : 2);

    const PreparedWeight matrix = weight.matrix(0);
    operations.gemm(exec, shape, {a, &matrix, b, plain, {}});
    operations.grouped_gemm(exec, {1, shape}, {offsets, a, &weight, b, out, {}});

    EXPECT_TRUE(close(exec, grouped, plain, tolerance(DType::fp64))) << name_of(kind);
  }
  for (const BackendChoice& choice : operations.choices()) EXPECT_EQ(choice.operation, "gemm");
}

}  // namespace
}  // namespace konclave
