#include "tests/mpi/all_ranks.hpp"
#include "tests/unit/model/tiny_model.hpp"
#include "tests/unit/model/workbench.hpp"

namespace konclave {
namespace {

/// A model over all ranks whose gradients are random, others on each rank.
struct Gradients {
  Gradients(int ep, DType compute) : all(ep) {
    ModelDefinition definition = tiny_model(compute);
    definition.moe.num_experts = 12;
    runner = tiny_runner(definition, built_backends(), all.groups);
  }

  /// Those of a rank of the world, of sizes that let the order of a sum be seen.
  static std::vector<double> of(const Parameter& parameter, int rank) {
    std::vector<double> values =
        random_values(parameter.name() + std::to_string(rank), parameter.size());
    for (double& value : values) value *= rank % 2 == 0 ? 1 : 1000;
    return values;
  }
  void fill() {
    runner->model().visit_parameters([&](const Parameter& parameter) {
      from_doubles(runner->exec(), of(parameter, all.world.rank()),
                   parameter.grad_to_add_to(runner->exec()));
    });
  }
  void reduce(const std::string& how, std::int64_t bucket_elements) {
    ParallelConfig parallel;
    parallel.grad_reduce = how;
    const auto buckets = make_grad_buckets(runner->model(), all.groups, bucket_elements);
    GradReducer(runner->model(), buckets, all.groups, parallel, runner->memory())
        .reduce(runner->exec(), runner->scratch());
  }
  /// ((g0 + g1) + g2) + ... over the ranks that hold the parameter, in type A.
  template <typename A> std::vector<double> folded(const Parameter& parameter) const {
    const int rank = all.world.rank();
    std::vector<A> sum(static_cast<std::size_t>(parameter.size()), 0);
    for (const int from : parameter.spec().routed ? all.grids.experts.members(rank, {"edp"})
                                                  : all.grids.dense.members(rank, {"dp"})) {
      const std::vector<double> values = of(parameter, from);
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<A>(values[i]);
    }
    return {sum.begin(), sum.end()};
  }
  std::vector<double> gradient(const Parameter& parameter) const {
    return to_doubles(runner->exec(), parameter.grad());
  }

  AllRanks all;
  std::unique_ptr<ModelRunner> runner;
};

int ranks() { return Communicator::world().size(); }

TEST(GradReducer, OrderedSumsAreTheFoldOverTheRanksBitByBit) {
  for (const int ep : ep_sizes(ranks())) {
    for (const DType type : {DType::bf16, DType::fp32, DType::fp64}) {
      Gradients gradients(ep, type);
      // Parameters have from 4 to 576 elements.
      for (const std::int64_t bucket :
           {std::int64_t{7}, std::int64_t{100}, ParallelConfig().bucket_size}) {
        gradients.fill();
        gradients.reduce("ordered", bucket);
        gradients.runner->model().visit_parameters([&](const Parameter& parameter) {
          EXPECT_EQ(gradients.gradient(parameter), type == DType::fp64
                                                       ? gradients.folded<double>(parameter)
                                                       : gradients.folded<float>(parameter))
              << parameter.name() << ", ep " << ep << ", bucket " << bucket << ", "
              << name_of(type);
        });
      }
    }
  }
}

TEST(GradReducer, TheLibrarysSumsAreClose) {
  for (const int ep : ep_sizes(ranks())) {
    Gradients gradients(ep, DType::fp64);
    for (const std::int64_t bucket : {std::int64_t{100}, ParallelConfig().bucket_size}) {
      gradients.fill();
      gradients.reduce("library", bucket);
      gradients.runner->model().visit_parameters([&](const Parameter& parameter) {
        EXPECT_TRUE(close(gradients.gradient(parameter), gradients.folded<double>(parameter),
                          tolerance(DType::fp64), /*typical=*/1000))
            << parameter.name() << ", ep " << ep << ", bucket " << bucket;
      });
    }
  }
}

TEST(GradReducer, OtherWaysAreRefused) {
  Gradients gradients(1, DType::fp32);
  EXPECT_THROW(gradients.reduce("any", 100), Error);
}

}  // namespace
}  // namespace konclave
