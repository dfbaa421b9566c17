#include "layers/embedding.hpp"
#include "model/loss.hpp"
#include "tests/unit/model/tiny_model.hpp"
#include "tests/unit/model/workbench.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <span>
#include <string>

namespace konclave {
namespace {

using Values = std::vector<double>;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// More experts than a small batch has assignments for.
ModelDefinition many_experts(bool tied) {
  ModelDefinition definition = tiny_model();
  definition.moe.num_experts = 16;
  definition.model.tie_embeddings = tied;
  return definition;
}

/// A model whose gradients are looked at without an update.
struct Gradients {
  explicit Gradients(const ModelDefinition& definition)
      : runner(tiny_runner(definition, built_backends())),
        optimizer_memory(runner->memory(), MemoryClass::optimizer, "optimizer"),
        buckets(make_grad_buckets(runner->model(), runner->groups(), ParallelConfig().bucket_size)),
        optimizer(buckets, runner->groups(), {}, {}, runner->exec(), optimizer_memory,
                  runner->memory()),
        reducer(runner->model(), buckets, runner->groups(), {}, runner->memory()) {}

  void fill(double value) {
    for (const Optimizer::State& state : optimizer.states()) {
      const auto size = static_cast<std::size_t>(state.piece.parameter->size());
      from_doubles(runner->exec(), Values(size, value), state.piece.parameter->grad());
    }
  }
  void train(const std::vector<HostMicroBatch>& batches) {
    runner->train(batches, {0.1, runner->moe_step(/*training=*/true, {0.5, 0.1, 0.5})});
  }
  std::map<std::string, Values> all() const {
    std::map<std::string, Values> found;
    for (const Optimizer::State& state : optimizer.states()) {
      found[state.piece.parameter->name()] =
          to_doubles(runner->exec(), state.piece.parameter->grad());
    }
    return found;
  }

  std::unique_ptr<ModelRunner> runner;
  Arena optimizer_memory;
  std::vector<GradBucket> buckets;
  Optimizer optimizer;
  GradReducer reducer;
};

/// Whatever the last step has left: NaN here, which would stay in every sum. One, two and four
/// micro-batches, so that products overwrite and add.
TEST(Gradients, AreThoseOfZeroedMemoryWhateverItHolds) {
  for (const bool tied : {false, true}) {
    for (const int micro_size : {4, 2, 1}) {
      SCOPED_TRACE(testing::Message() << (tied ? "tied, " : "") << "micro size " << micro_size);
      Gradients zeroed(many_experts(tied)), left(many_experts(tied));
      zeroed.fill(0);
      zeroed.train(tiny_batches(4, 4));
      left.fill(kNaN);
      left.optimizer.restart_gradients();
      left.train(tiny_batches(4, micro_size));
      left.reducer.reduce(left.runner->exec(), left.runner->scratch());
      const auto expected = zeroed.all(), found = left.all();
      for (const auto& [name, values] : expected) {
        EXPECT_TRUE(close(found.at(name), values, {1e-12, 1e-12})) << name;
      }
    }
  }
}

TEST(Gradients, AreZeroForExpertsWithoutRows) {
  Gradients gradients(many_experts(/*tied=*/false));
  gradients.fill(kNaN);
  gradients.optimizer.restart_gradients();
  gradients.train(tiny_batches(1, 1));  // 5 tokens reach at most 10 of 16 experts
  const Values all = gradients.all().at("model.layers.1.moe.experts.up_proj.weight");
  const auto of_expert = static_cast<std::ptrdiff_t>(all.size() / 16);
  int idle = 0;
  for (auto first = all.begin(); first != all.end(); first += of_expert) {
    const bool is_zero = std::all_of(first, first + of_expert, [](double g) { return g == 0; });
    const bool is_number = std::all_of(first, first + of_expert, [](double g) { return g == g; });
    EXPECT_TRUE(is_number);
    idle += is_zero ? 1 : 0;
  }
  EXPECT_GE(idle, 6);
  EXPECT_LT(idle, 16);
}

TEST(Gradients, AreZeroWhereNothingIsAdded) {
  Gradients gradients(many_experts(/*tied=*/false));
  gradients.fill(kNaN);
  gradients.optimizer.restart_gradients();
  gradients.reducer.reduce(gradients.runner->exec(), gradients.runner->scratch());
  for (const auto& [name, values] : gradients.all()) {
    EXPECT_EQ(values, Values(values.size(), 0)) << name;
  }
  gradients.fill(3);
  gradients.reducer.reduce(gradients.runner->exec(), gradients.runner->scratch());
  EXPECT_EQ(gradients.all().at("lm_head.weight").front(), 3) << "of a step that is over";
}

/// Products of the two first micro-batches, and what was in the memory of their result.
struct Written {
  bool accumulate;
  double before;
};
std::map<const void*, std::vector<Written>> written;

void note(const ExecSpace& exec, const GemmShape& shape, const AnyView& c) {
  if (shape.kind != GemmKind::weight_gradient) return;
  double largest = 0;
  for (const double value : to_doubles(exec, c)) largest = std::max(largest, std::abs(value));
  written[c.data()].push_back({shape.accumulate, largest});
}

/// The offers of `reference`, which note how they write gradients.
OpTable noting_table() {
  OpTable table = built_backends();
  GemmOffer plain = table.gemm.back();
  static const auto run_plain = plain.run;
  plain.run = [](const ExecSpace& exec, const GemmShape& shape, const GemmOperands& operands) {
    note(exec, shape, operands.c);
    run_plain(exec, shape, operands);
  };
  GroupedGemmOffer grouped = table.grouped_gemm.back();
  static const auto run_grouped = grouped.run;
  grouped.run = [](const ExecSpace& exec, const GroupedGemmShape& shape,
                   const GroupedGemmOperands& operands) {
    note(exec, shape.each, operands.c);
    run_grouped(exec, shape, operands);
  };
  table.gemm = {plain};
  table.grouped_gemm = {grouped};
  return table;
}

/// No pass over the memory: each step's first product finds what the step before has left, and
/// replaces it.
TEST(Gradients, OfMatricesAreNotZeroedBeforehand) {
  written.clear();
  const std::unique_ptr<ModelRunner> runner = tiny_runner(tiny_model(), noting_table());
  Trainer trainer(*runner, {}, 100);
  trainer.step(1, tiny_batches(4, 2));
  written.clear();
  trainer.step(2, tiny_batches(4, 2));
  std::size_t matrices = 0;
  runner->model().visit_parameters([&](const Parameter& parameter) {
    const bool by_products =
        parameter.spec().shape.size() > 1 && parameter.name() != "model.embed_tokens.weight";
    if (!by_products) return;
    ++matrices;
    const std::vector<Written>& products = written[parameter.grad().data()];
    ASSERT_EQ(products.size(), 2U) << parameter.name() << ", one for each micro-batch";
    EXPECT_FALSE(products[0].accumulate) << parameter.name();
    EXPECT_GT(products[0].before, 0) << parameter.name();
    EXPECT_TRUE(products[1].accumulate) << parameter.name();
  });
  EXPECT_EQ(written.size(), matrices);
}

/// The matrix of a tied model: whoever comes first, head or lookup.
TEST(Gradients, OfATiedMatrixAddUpInEitherOrder) {
  Workbench bench;
  const TensorParallel tp(Groups::alone());
  Embedding embedding("embedding", 7, 4, DType::fp64, 0.5, tp, bench.storage());
  Parameter& weight = embedding.weight();
  weight.initialise(bench.exec, 3);
  weight.prepare(bench.exec, bench.operations, 0);
  const AnyView hidden = bench.tensors.random("hidden", DType::fp64, 3, 4);
  const AnyView dy = bench.tensors.random("dy", DType::fp64, 3, 4);
  const AnyView d_hidden = bench.tensors.poisoned(DType::fp64, 3, 4);
  const auto losses = bench.tensors.poisoned(DType::fp64, 3).as1<double>();
  const auto head = [&] {
    const LossHead loss{&weight, hidden, bench.tensors.integers({2, 6, 2}), 1, losses, d_hidden};
    loss_heads(bench.context(), tp, std::span(&loss, 1));
  };
  const auto lookup = [&] {  // of tokens 2, 5, 2
    embedding.backward(bench.context(),
                       {bench.tensors.integers({0, 2, 1}), bench.tensors.integers({0, 2, 3}),
                        bench.tensors.integers({2, 5})},
                       dy);
  };
  bench.set(weight.grad(), 0);
  head();
  lookup();
  const Values expected = to_doubles(bench.exec, weight.grad());
  for (const bool head_first : {true, false}) {
    bench.set(weight.grad(), kNaN);
    weight.restart_gradient();
    if (head_first) head();
    lookup();
    if (!head_first) head();
    EXPECT_TRUE(close(to_doubles(bench.exec, weight.grad()), expected, tolerance(DType::fp64)))
        << (head_first ? "head first" : "lookup first");
  }
}

}  // namespace
}  // namespace konclave
