#include "tests/mpi/all_ranks.hpp"
#include "tests/unit/model/packing_backend.hpp"
#include "tests/unit/model/tiny_model.hpp"
#include "tests/unit/model/workbench.hpp"
#include "train/grad_reducer.hpp"
#include "train/optimizer.hpp"

#include <map>

namespace konclave {
namespace {

using Values = std::vector<double>;

/// A model over all ranks, with its optimizer's state on every rank or distributed, that is
/// updated with random gradients, others on each rank.
struct Updated {
  Updated(const AllRanks& all, const ParallelConfig& parallel, const OptimizerConfig& config,
          DType compute, std::int64_t bucket, const OpTable& table = built_backends())
      : ranks(all),
        runner(tiny_runner(definition(compute), table, all.groups)),
        memory(runner->memory(), MemoryClass::optimizer, "optimizer"),
        buckets(make_grad_buckets(runner->model(), all.groups, bucket)),
        optimizer(buckets, all.groups, config, parallel, runner->exec(), memory, runner->memory(),
                  /*seed=*/7),
        reducer(runner->model(), buckets, all.groups, parallel, runner->memory()) {}

  static ModelDefinition definition(DType compute) {
    ModelDefinition definition = tiny_model(compute);
    definition.moe.num_experts = 12;
    return definition;
  }
  static ParallelConfig distributed() {
    ParallelConfig parallel;
    parallel.distributed_optimizer = true;
    return parallel;
  }

  /// The norm of the gradients.
  double step(int number) {
    const std::string rank = std::to_string(ranks.world.rank()) + " " + std::to_string(number);
    runner->model().visit_parameters([&](Parameter& parameter) {
      parameter.restart_gradient();
      from_doubles(runner->exec(), random_values(parameter.name() + rank, parameter.size()),
                   parameter.grad_to_add_to(runner->exec()));
    });
    reducer.reduce(runner->exec(), runner->scratch());
    const double norm = optimizer.gradient_norm(runner->exec(), runner->scratch());
    optimizer.update(runner->exec(), runner->operations(), runner->scratch(), number, 0.01, norm);
    return norm;
  }

  /// What products and everybody else read.
  std::map<std::string, Values> values() {
    std::map<std::string, Values> all;
    runner->model().visit_parameters([&](Parameter& parameter) {
      const AnyIn held = parameter.is_packed() ? parameter.prepared(GemmKind::forward).packed
                                               : AnyIn(parameter.value());
      all[parameter.name()] = to_doubles(runner->exec(), held);
    });
    optimizer.restore_values(runner->exec());
    runner->model().visit_parameters([&](const Parameter& parameter) {
      all[parameter.name() + " restored"] = to_doubles(runner->exec(), parameter.value());
    });
    return all;
  }

  /// Elements of which this rank has master weights or, as in fp32, could have.
  std::int64_t owned() const {
    std::int64_t count = 0;
    for (const Optimizer::State& state : optimizer.states()) count += state.piece.count;
    return count;
  }

  const AllRanks& ranks;
  std::unique_ptr<ModelRunner> runner;
  Arena memory;
  std::vector<GradBucket> buckets;
  Optimizer optimizer;
  GradReducer reducer;
};

/// Says where the first difference is instead of printing everything.
void expect_equal(const std::map<std::string, Values>& actual,
                  const std::map<std::string, Values>& expected) {
  for (const auto& [name, values] : expected) {
    const Values& mine = actual.at(name);
    ASSERT_EQ(mine.size(), values.size()) << name;
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(mine[i], values[i]) << name << "[" << i << "]";
    }
  }
}

int ranks() { return Communicator::world().size(); }

OptimizerConfig unclipped() {
  OptimizerConfig config;
  config.clip_norm = 0;  // the norm's bits depend on who sums what
  return config;
}

/// Buckets of 4 lines of a cache cut every parameter, and shares cut pieces; with 1000 elements
/// there are buckets of one parameter and of several.
const std::int64_t kBuckets[] = {64, 1000, ParallelConfig().bucket_size};

TEST(DistributedOptimizer, HasTheBitsOfWholeState) {
  for (const int ep : ep_sizes(ranks())) {
    const AllRanks all(ep);
    for (const DType compute : {DType::bf16, DType::fp32, DType::fp64}) {
      for (const std::int64_t bucket : kBuckets) {
        for (const OpTable& table : {built_backends(), packing_backend::table()}) {
          SCOPED_TRACE(testing::Message()
                       << "ep " << ep << ", " << name_of(compute) << ", buckets of " << bucket);
          Updated plain(all, {}, unclipped(), compute, bucket, table);
          Updated distributed(all, Updated::distributed(), unclipped(), compute, bucket, table);
          for (int number = 1; number <= 3; ++number) {
            const double norm = plain.step(number);
            EXPECT_NEAR(distributed.step(number), norm, 1e-12 * norm);
            expect_equal(distributed.values(), plain.values());
          }
        }
      }
    }
  }
}

/// The rounding of moments by chance goes by elements of the whole tensor, and clipping by the norm
/// of all gradients.
TEST(DistributedOptimizer, HasTheBitsOfWholeStateWithMomentsInBf16) {
  OptimizerConfig config = unclipped();
  config.moments = "bf16";
  for (const int ep : ep_sizes(ranks())) {
    const AllRanks all(ep);
    Updated plain(all, {}, config, DType::bf16, 1000);
    Updated distributed(all, Updated::distributed(), config, DType::bf16, 64);
    for (int number = 1; number <= 3; ++number) {
      plain.step(number);
      distributed.step(number);
    }
    expect_equal(distributed.values(), plain.values());
  }
}

/// Each rank rounds what it sends, and sums are fp32: equal to those of fp32 on the wire of
/// gradients that bf16 holds anyhow.
TEST(DistributedOptimizer, AddsInFp32WhatTravelsInBf16) {
  for (const bool distributed : {false, true}) {
    const AllRanks all;
    ParallelConfig wide, narrow;
    wide.distributed_optimizer = narrow.distributed_optimizer = distributed;
    narrow.grad_wire = "bf16";
    const auto reduced = [&](const ParallelConfig& parallel, bool rounded) {
      Updated updated(all, parallel, {}, DType::bf16, 1000);
      updated.runner->model().visit_parameters([&](Parameter& parameter) {
        const AnyView& grad = parameter.grad_to_add_to(updated.runner->exec());
        Values values =
            random_values(parameter.name() + std::to_string(all.world.rank()), parameter.size());
        for (double& value : values) {
          if (rounded) value = Bf16(static_cast<float>(value));
        }
        from_doubles(updated.runner->exec(), values, grad);
      });
      updated.reducer.reduce(updated.runner->exec(), updated.runner->scratch());
      std::vector<Values> sums;
      for (const Optimizer::State& state : updated.optimizer.states()) {
        sums.push_back(
            to_doubles(updated.runner->exec(), state.piece.of(state.piece.parameter->grad())));
      }
      return sums;
    };
    EXPECT_EQ(reduced(narrow, false), reduced(wide, /*rounded=*/ranks() > 1));
    if (ranks() > 1) {
      EXPECT_NE(reduced(narrow, false), reduced(wide, false));
    }
  }
}

/// 4 bytes a parameter for gradients, and of the optimizer 12 (with moments in bf16 8) for each
/// that a rank owns; the router and others that are fp32 are their own masters. Views begin at
/// lines of a cache.
TEST(DistributedOptimizer, TakesTheMemoryOfItsShare) {
  constexpr std::int64_t kLine = 64;
  for (const int ep : ep_sizes(ranks())) {
    for (const char* moments : {"fp32", "bf16"}) {
      const AllRanks all(ep);
      OptimizerConfig config;
      config.moments = moments;
      Updated updated(all, Updated::distributed(), config, DType::bf16, 1000);
      std::int64_t parameters = 0, bytes = 0, views = 0;
      updated.runner->model().visit_parameters([&](const Parameter& parameter) {
        parameters += parameter.size();
        ++views;
      });
      const MemoryAccount& account = updated.runner->memory();
      const auto expect_about = [&](MemoryClass use, std::int64_t expected, std::int64_t lines) {
        // An arena takes blocks, the first of them of so much.
        constexpr std::int64_t kBlock = std::int64_t{1} << 18;
        const std::int64_t most = expected + lines * kLine;
        EXPECT_GE(account.current(use), expected) << name_of(use);
        EXPECT_LE(account.current(use), std::max(kBlock, most + kBlock)) << name_of(use);
      };
      expect_about(MemoryClass::gradients, 4 * parameters, views);
      for (const Optimizer::State& state : updated.optimizer.states()) {
        const std::int64_t of_moments = config.moments == "bf16" ? 2 : 4;
        bytes += state.piece.count * ((state.has_master() ? 4 : 0) + 2 * of_moments);
      }
      expect_about(MemoryClass::optimizer, bytes,
                   3 * static_cast<std::int64_t>(updated.optimizer.states().size()));
      // A share of each bucket, which is up to a line more than its part.
      std::int64_t dense = 0, routed = 0, slack = 0;
      for (const GradBucket& each : updated.buckets) {
        (each.over == GradBucket::Over::expert_dp ? routed : dense) += each.elements;
        slack += 16;
      }
      EXPECT_LE(updated.owned(), dense / ranks() + routed / (ranks() / ep) + slack);
      EXPECT_EQ(all.groups.world->sum(updated.owned()), dense + routed * ep);
    }
  }
}

}  // namespace
}  // namespace konclave
