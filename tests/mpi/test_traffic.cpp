#include "comm/traffic.hpp"
#include "model/expected_traffic.hpp"
#include "ops/backend_list.hpp"
#include "tests/unit/model/tiny_model.hpp"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <string>

namespace konclave {
namespace {

constexpr int kSequenceLength = 48;  // for cp up to 8, with sp
const std::vector<std::string> kCollectives = {"all_gather", "all_to_all", "broadcast",
                                               "all_reduce", "gather",     "receive"};

/// Bytes of all ranks by "GROUP COLLECTIVE".
using Bytes = std::map<std::string, std::int64_t>;

Bytes named(const TrafficBytes& bytes) {
  Bytes all;
  for (const auto& [key, amount] : bytes) all[key.group + " " + key.collective] = amount;
  return all;
}

/// Of a table of each rank. Collective.
Bytes sum_over_ranks(const Transport& world, const TrafficTable& mine) {
  std::vector<std::string> names;
  std::vector<std::int64_t> sums;
  for (const char* group : kGroupNames) {
    for (const std::string& collective : kCollectives) {
      names.push_back(group + (" " + collective));
      const auto found = mine.find({group, collective});
      sums.push_back(found == mine.end() ? 0 : found->second.bytes);
    }
  }
  std::int64_t all = 0;
  for (const auto& [key, traffic] : mine) all += traffic.bytes;
  EXPECT_EQ(std::reduce(sums.begin(), sums.end()), all) << "a group or collective has no name";
  world.sum(std::span(sums));
  Bytes bytes;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (sums[i] > 0) bytes[names[i]] = sums[i];
  }
  return bytes;
}

/// A ParallelConfig to be made of some of its fields.
struct Mapping {
  int tp = 1, cp = 1, pp = 1, ep = 1, etp = 1;
  bool sp = false;
  std::string cp_comm = "ring";
  int vpp = 1, vpp_group_size = 0;
  std::string layout = "";
  int first_stage_layers = 0;
  std::string order = "tp-cp-ep-dp-pp", grad_reduce = "ordered";

  ParallelConfig config() const {
    return {tp,
            cp,
            pp,
            ep,
            etp,
            sp,
            cp_comm,
            vpp,
            vpp_group_size,
            layout,
            first_stage_layers,
            0,
            order,
            grad_reduce};
  }
};

/// Dense and MoE layers by turns, of numbers that 2, 3, 4 and 8 ranks can share, the vocabulary of
/// which none can share evenly.
StepShape step_of(const Mapping& mapping) {
  StepShape step;
  step.parallel = mapping.config();
  step.ranks = Communicator::world().size();
  step.global_size = 16;
  step.definition = tiny_model(DType::fp32);
  ModelConfig& model = step.definition.model;
  model.sequence_length = kSequenceLength;
  model.num_layers = 4;
  model.num_heads = 24;
  model.num_kv_heads = 24;
  MoeConfig& moe = step.definition.moe;
  moe.num_experts = 24;
  moe.top_k = 3;
  moe.ffn_hidden_size = 12;
  moe.shared_ffn_hidden_size = 24;
  moe.shared_gate = true;
  moe.layer_frequency = {0, 1, 0, 1};
  if (mapping.tp > 1 && !mapping.sp) moe.layer_frequency = {0, 0, 0, 0};
  return step;
}

/// This rank's part of a global batch. What the tokens are plays no part.
std::vector<HostMicroBatch> batches(const StepShape& step, const Groups& groups) {
  const RandomStream stream(static_cast<std::uint64_t>(groups.dp->rank()), "tokens");
  const int tokens = step.micro_size * kSequenceLength;
  std::vector<HostMicroBatch> all(
      static_cast<std::size_t>(step.global_size / step.micro_size / groups.dp->size()));
  std::uint64_t drawn = 0;
  for (HostMicroBatch& batch : all) {
    for (int row = 0; row < tokens; ++row) {
      batch.tokens.push_back(static_cast<int>(stream.bits(drawn++) % kVocabulary));
      batch.labels.push_back(row % 3 == 0 ? -1 : batch.tokens.back());
    }
  }
  return all;
}

/// What each of two training steps moved.
std::vector<Bytes> train(const StepShape& step) {
  const Communicator world = Communicator::world();
  const auto log = std::make_shared<CommunicationLog>();
  const Groups groups =
      Groups::create(world, make_rank_grids(step.parallel, step.ranks), step.parallel, log);
  const auto runner = tiny_runner(step.definition, built_backends(), groups);
  runner->model().recompute(step.recompute);
  Trainer trainer(*runner, OptimizerConfig(), 100, step.parallel);
  std::vector<Bytes> steps;
  for (int number = 1; number <= 2; ++number) {
    const TrafficTable before = log->totals();
    EXPECT_TRUE(trainer.step(number, batches(step, groups)).finite);
    const TrafficTable moved = traffic_since(before, log->totals());
    steps.push_back(sum_over_ranks(*groups.world, moved));
  }
  return steps;
}

/// On as many ranks as these sizes need, or twice as many, and no others.
void expect_formula(const StepShape& step) {
  const ParallelConfig& parallel = step.parallel;
  const int smallest = smallest_ranks(parallel);
  if (step.ranks != smallest && step.ranks != 2 * smallest) return;
  SCOPED_TRACE(testing::Message() << "tp " << parallel.tp << (parallel.sp ? " sp" : "") << ", cp "
                                  << parallel.cp << " " << parallel.cp_comm << ", pp "
                                  << parallel.pp << " x " << parallel.vpp << " " << parallel.layout
                                  << ", ep " << parallel.ep << ", etp " << parallel.etp << ", "
                                  << parallel.order << ", " << parallel.grad_reduce << ", "
                                  << step.definition.moe.dispatcher << ", micro_size "
                                  << step.micro_size);
  const auto expect_measured = [](const StepShape& as) {
    SCOPED_TRACE(testing::Message()
                 << (as.parallel.distributed_optimizer ? "distributed state" : "") << ", wire "
                 << as.parallel.grad_wire);
    const ExpectedTraffic expected = expected_traffic(as);
    EXPECT_EQ(named(expected.least), named(expected.most));
    for (const Bytes& measured : train(as)) EXPECT_EQ(measured, named(expected.least));
  };
  expect_measured(step);
  if (parallel.grad_reduce == "library") return;
  StepShape distributed = step;
  distributed.parallel.distributed_optimizer = true;
  expect_measured(distributed);
  if (step.definition.compute != DType::bf16) return;
  for (const bool state : {false, true}) {
    distributed.parallel.distributed_optimizer = state;
    distributed.parallel.grad_wire = "bf16";
    expect_measured(distributed);
  }
}
void expect_formula(const Mapping& mapping) { expect_formula(step_of(mapping)); }

TEST(ExpectedTraffic, OfDataParallelism) {
  expect_formula(Mapping{});
  expect_formula(Mapping{.grad_reduce = "library"});
  StepShape step = step_of({});
  step.definition.compute = DType::bf16;
  expect_formula(step);
  step.definition.model.tie_embeddings = true;
  step.definition.moe.balancing = {"none"};
  expect_formula(step);
}

TEST(ExpectedTraffic, OfTensorParallelism) {
  for (const int tp : {2, 3, 4}) {
    for (const bool sp : {false, true}) {
      expect_formula({.tp = tp, .sp = sp});
      expect_formula({.tp = tp, .sp = sp, .grad_reduce = "library"});
    }
  }
}

TEST(ExpectedTraffic, OfRowsThatTravelPieceByPiece) {
  for (const Mapping& mapping :
       {Mapping{.tp = 2, .sp = true}, Mapping{.tp = 3, .sp = true}, Mapping{.tp = 4, .sp = true},
        Mapping{.tp = 2, .cp = 2, .sp = true}, Mapping{.tp = 2, .pp = 2, .sp = true}}) {
    StepShape step = step_of(mapping);
    step.parallel.overlap_tp = true;
    step.micro_size = 8;  // more than one piece
    expect_formula(step);
    step.recompute = {"full"};
    expect_formula(step);
  }
  StepShape step = step_of({});
  step.parallel.overlap_tp = true;  // which is nothing to one rank
  expect_formula(step);
}

TEST(ExpectedTraffic, OfKeyHeadsThatSeveralRanksHave) {
  for (const bool sp : {false, true}) {
    for (const int kv_heads : {1, 2}) {
      StepShape step = step_of({.tp = 4, .sp = sp});
      step.definition.model.num_kv_heads = kv_heads;
      step.definition.model.qk_norm = kv_heads == 1;
      step.definition.model.qkv_bias = kv_heads == 2;
      expect_formula(step);
    }
  }
}

TEST(ExpectedTraffic, OfContextParallelism) {
  for (const char* cp_comm : {"ring", "all_gather", "a2a"}) {
    for (const int cp : {2, 3, 4, 8}) {
      StepShape step = step_of({.cp = cp, .cp_comm = cp_comm});
      step.definition.compute = cp == 2 ? DType::bf16 : DType::fp64;
      expect_formula(step);
    }
    StepShape step = step_of({.tp = 2, .cp = 2, .sp = true, .cp_comm = cp_comm});
    step.micro_size = 4;
    step.definition.moe.window = 2;
    step.definition.model.num_kv_heads = 4;
    expect_formula(step);
  }
}

TEST(ExpectedTraffic, OfPipelines) {
  for (const bool tied : {false, true}) {
    for (const Mapping& mapping :
         {Mapping{.pp = 2}, Mapping{.pp = 4}, Mapping{.pp = 2, .vpp = 2},
          Mapping{.pp = 2, .vpp = 2, .vpp_group_size = 4},
          Mapping{.pp = 2, .first_stage_layers = 1}, Mapping{.pp = 3, .layout = "Et|tt|tL"},
          Mapping{.pp = 2, .layout = "Et|t|tt|L"}, Mapping{.tp = 2, .pp = 2, .sp = true},
          Mapping{.tp = 2, .pp = 2}, Mapping{.cp = 2, .pp = 2, .vpp = 2}}) {
      StepShape step = step_of(mapping);
      step.definition.model.tie_embeddings = tied;
      expect_formula(step);
    }
  }
}

TEST(ExpectedTraffic, OfExperts) {
  for (const char* dispatcher : {"alltoall", "allgather"}) {
    for (const Mapping& mapping :
         {Mapping{.ep = 2}, Mapping{.ep = 3}, Mapping{.ep = 8}, Mapping{.etp = 2},
          Mapping{.etp = 3}, Mapping{.ep = 2, .etp = 2}, Mapping{.ep = 2, .order = "dp-ep"},
          Mapping{.tp = 2, .etp = 2, .sp = true}, Mapping{.tp = 2, .ep = 4, .sp = true},
          Mapping{.cp = 4, .ep = 4},
          Mapping{.tp = 4, .ep = 2, .etp = 2, .sp = true, .grad_reduce = "library"}}) {
      StepShape step = step_of(mapping);
      step.definition.moe.dispatcher = dispatcher;
      expect_formula(step);
      step.parallel.overlap_ep = true;
      expect_formula(step);
    }
  }
}

/// Fewer rows at once than anybody's share, or as many as can come.
TEST(ExpectedTraffic, OfExpertsWithABudget) {
  for (const std::int64_t budget : {20, 100000}) {
    for (const Mapping& mapping :
         {Mapping{.ep = 2}, Mapping{.etp = 3}, Mapping{.ep = 2, .etp = 2}}) {
      StepShape step = step_of(mapping);
      step.definition.moe.receive_budget = budget;
      expect_formula(step);
      step.parallel.overlap_ep = true;
      expect_formula(step);
    }
  }
}

TEST(ExpectedTraffic, OfWindows) {
  for (const int window : {0, 1, 2}) {
    StepShape step = step_of({.cp = 2});
    step.micro_size = 2;
    step.definition.moe.window = window;
    expect_formula(step);
  }
}

/// Counts of sequences, jitter and the running load, once and again for backward.
TEST(ExpectedTraffic, OfBalance) {
  for (const Mapping& mapping :
       {Mapping{}, Mapping{.cp = 2}, Mapping{.pp = 2}, Mapping{.tp = 2, .pp = 2, .sp = true},
        Mapping{.pp = 2, .vpp = 2}}) {
    StepShape step = step_of(mapping);
    MoeConfig& moe = step.definition.moe;
    moe.input_jitter = 0.1;
    moe.balancing = {"seq_aux_loss"};
    moe.aux_loss_coefficients = {0.1};
    step.micro_size = 2;
    expect_formula(step);
    moe.balancing = {"global_aux_loss"};
    moe.global_aux_counts = "running";
    expect_formula(step);
    step.recompute = {"full"};
    expect_formula(step);
    step.recompute = {"selective", {"layernorm"}};
    expect_formula(step);
  }
}

/// How many rounds it takes is the tokens' affair.
TEST(ExpectedTraffic, OfSinkhornIsBetweenItsBounds) {
  StepShape step = step_of({.cp = 2});
  if (step.ranks != 2 && step.ranks != 4) return;
  step.definition.moe.balancing = {"sinkhorn"};
  const ExpectedTraffic expected = expected_traffic(step);
  for (const Bytes& measured : train(step)) {
    const Bytes least = named(expected.least), most = named(expected.most);
    EXPECT_EQ(measured.size(), least.size());
    for (const auto& [name, bytes] : measured) {
      EXPECT_GE(bytes, least.at(name)) << name;
      EXPECT_LE(bytes, most.at(name)) << name;
    }
    const std::int64_t once = least.at("tp_cp all_gather"), all = measured.at("tp_cp all_gather");
    EXPECT_GT(all, once);
    EXPECT_EQ(all % (once / (2 * step.global_size)), 0) << "whole rounds of two layers";
  }
}

TEST(ExpectedTraffic, OfEverythingAtOnce) {
  for (const char* dispatcher : {"alltoall", "allgather"}) {
    StepShape step = step_of({.tp = 2, .cp = 2, .pp = 2, .ep = 2, .etp = 2, .sp = true, .vpp = 2});
    step.definition.moe.dispatcher = dispatcher;
    step.definition.model.tie_embeddings = true;
    step.definition.compute = DType::bf16;
    step.micro_size = 2;
    expect_formula(step);
  }
  StepShape step = step_of({.tp = 2, .pp = 2, .ep = 4, .sp = true, .order = "tp-cp-dp-ep-pp"});
  step.micro_size = 2;
  expect_formula(step);
}

}  // namespace
}  // namespace konclave
