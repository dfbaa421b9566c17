#include "checkpoints/history.hpp"
#include "run/saved_run.hpp"
#include "tests/mpi/all_ranks.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/unit/model/packing_backend.hpp"
#include "tests/unit/model/tiny_model.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace konclave {
namespace {

constexpr int kSequences = 12;  // for 1, 2, 3 and 4 ranks

struct Training {
  Training(const Groups& groups, const OpTable& table, bool distributed)
      : runner(tiny_runner(model(), table, groups)),
        trainer(*runner, settings(), 100, parallel(distributed)) {}

  static OptimizerConfig settings() {
    OptimizerConfig config;
    config.clip_norm = 0;  // the norm's bits depend on who sums what
    return config;
  }
  static ParallelConfig parallel(bool distributed) {
    ParallelConfig config;
    config.distributed_optimizer = distributed;
    return config;
  }

  static ModelDefinition model() {
    ModelDefinition definition = tiny_model(DType::bf16);
    definition.moe.num_experts = 12;
    return definition;
  }
  StepMetrics step(int number) {
    const std::vector<HostMicroBatch> all = tiny_batches(kSequences, 1, number);
    const Transport& dp = *runner->groups().dp;
    const std::ptrdiff_t share = std::ssize(all) / dp.size();
    const auto first = all.begin() + dp.rank() * share;
    return trainer.step(number, {first, first + share});
  }
  void save(const AllRanks& all, const std::string& folder) {
    RunState state;
    state.step = 2;
    save_run(all.world, folder, "", {}, state, {all.world.size(), {}}, *runner,
             trainer.optimizer());
  }

  std::unique_ptr<ModelRunner> runner;
  Trainer trainer;
};

/// The bytes of all tensors, by name.
std::map<std::string, std::vector<char>> tensors_of(const Checkpoint& checkpoint) {
  std::map<std::string, std::vector<char>> all;
  for (const ParameterSpec& spec : parameter_specs(Training::model())) {
    for (const char* group : {kModelGroup, kMasterGroup, kExpAvgGroup, kExpAvgSqGroup}) {
      const std::string name = group + spec.name;
      if (!checkpoint.has(name)) continue;
      all[name].resize(static_cast<std::size_t>(checkpoint.info(name).bytes()));
      checkpoint.read(name, all[name].data());
    }
  }
  return all;
}

/// Values that only packed forms hold during a run are in its checkpoints as all others are, and so
/// is state that is distributed over the ranks; a run that goes on from one has the bits of a run
/// that never stopped.
TEST(SavedRun, IsTheSameHoweverWeightsAreHeld) {
  const AllRanks all(/*ep=*/Communicator::world().size());
  const TemporaryFolder mine;
  std::map<std::string, std::vector<char>> expected;
  for (const auto& [table, distributed] :
       {std::pair{packing_backend::reference(), false}, std::pair{packing_backend::table(), false},
        std::pair{packing_backend::reference(), true}, std::pair{packing_backend::table(), true}}) {
    const bool packed = table.gemm.front().packing.form != nullptr;
    const std::string name =
        std::string(packed ? "packed" : "stored") + (distributed ? " distributed" : "");
    SCOPED_TRACE(name);
    const std::string folder = all.world.broadcast(mine.path(name), /*root=*/0);
    Training run(all.groups, table, distributed);
    run.step(1);
    run.step(2);
    run.save(all, folder);
    const StepMetrics next = run.step(3);

    const auto checkpoint = newest_good(folder, [](const std::string&) {});
    EXPECT_TRUE(checkpoint.has_value());
    if (!checkpoint) return;
    const auto tensors = tensors_of(*checkpoint);
    EXPECT_FALSE(tensors.empty());
    if (!expected.empty()) {
      EXPECT_EQ(tensors, expected);
    }
    expected = tensors;

    Training resumed(all.groups, table, distributed);
    resumed.step(1);  // what it has is replaced
    EXPECT_EQ(load_run(*checkpoint, *resumed.runner, resumed.trainer.optimizer()).step, 2);
    const StepMetrics same = resumed.step(3);
    EXPECT_EQ(same.loss, next.loss);
    EXPECT_EQ(same.grad_norm, next.grad_norm);
    all.world.barrier();
  }
}

}  // namespace
}  // namespace konclave
