#include "model/expected_traffic.hpp"

#include <gtest/gtest.h>

namespace konclave {
namespace {

/// Layers of two heads, H = 8, D = 4, F = 12 and V = 11 in fp32, for sequences of S = 4 tokens.
StepShape small_step(int ranks, int layers = 1) {
  StepShape step;
  step.ranks = ranks;
  step.global_size = 4;
  step.definition.compute = DType::fp32;
  ModelConfig& model = step.definition.model;
  model.vocab_size = 11;
  model.sequence_length = 4;
  model.hidden_size = 8;
  model.num_layers = layers;
  model.num_heads = 2;
  model.ffn_hidden_size = 12;
  return step;
}

/// With experts in every layer instead of an MLP.
StepShape small_moe_step(int ranks) {
  StepShape step = small_step(ranks);
  MoeConfig& moe = step.definition.moe;
  moe.num_experts = 4;
  moe.top_k = 2;
  moe.ffn_hidden_size = 6;
  return step;
}

TrafficBytes expected(const StepShape& step) {
  const ExpectedTraffic traffic = expected_traffic(step);
  EXPECT_EQ(traffic.least, traffic.most);
  return traffic.least;
}

std::int64_t at(const TrafficBytes& bytes, const char* group, const char* collective) {
  const auto found = bytes.find({group, collective});
  return found == bytes.end() ? 0 : found->second;
}

constexpr std::int64_t kElement = 4, kNumber = 8;
constexpr std::int64_t kMatrix = 11 * 8, kAttention = 4 * 8 * 8, kMlp = 3 * 8 * 12, kNorms = 3 * 8;

TEST(ExpectedTraffic, IsNoneOnOneRank) { EXPECT_TRUE(expected(small_step(1)).empty()); }

TEST(ExpectedTraffic, OfDataParallelism) {
  StepShape step = small_step(2);
  const std::int64_t gradients = (2 * kMatrix + kAttention + kMlp + kNorms) * kElement;
  const std::int64_t numbers = 2 * 2 * (4 + 2) * kNumber;  // of two micro-batches each
  EXPECT_EQ(expected(step), (TrafficBytes{{{"dp", "gather"}, numbers},
                                          {{"dp_cp", "all_to_all"}, 2 * gradients},
                                          {{"dp_cp", "all_gather"}, 2 * gradients}}));
  step.parallel.grad_reduce = "library";
  EXPECT_EQ(expected(step),
            (TrafficBytes{{{"dp", "gather"}, numbers}, {{"dp_cp", "all_reduce"}, 2 * gradients}}));
}

/// Four micro-batches of four rows on both ranks: attention, MLP, embedding and head enter 3 + 3 +
/// 1 + 1 and leave 2 + 2 + 1 + 1 times.
TEST(ExpectedTraffic, OfTensorParallelism) {
  StepShape step = small_step(2);
  step.parallel.tp = 2;
  const std::int64_t passes = 2 * 4, rows = 4 * 8 * kElement, of_loss = 2 * 4 * 3 * kElement;
  const std::int64_t of_norm = 2 * 2 * kNumber;
  EXPECT_EQ(expected(step), (TrafficBytes{{{"tp", "all_to_all"}, passes * 6 * rows},
                                          {{"tp", "all_gather"}, passes * (6 * rows + of_loss)},
                                          {{"tp", "gather"}, of_norm}}));
  step.parallel.sp = true;
  EXPECT_EQ(expected(step), (TrafficBytes{{{"tp", "all_to_all"}, passes * 6 * rows},
                                          {{"tp", "all_gather"}, passes * (8 * rows + of_loss)},
                                          {{"tp", "gather"}, of_norm},
                                          {{"tp_dp_cp", "all_to_all"}, 2 * kNorms * kElement},
                                          {{"tp_dp_cp", "all_gather"}, 2 * kNorms * kElement}}));
}

/// Two rows on each rank, keys of 8 numbers.
TEST(ExpectedTraffic, OfContextParallelism) {
  StepShape step = small_step(2);
  step.parallel.cp = 2;
  step.definition.compute = DType::bf16;
  const std::int64_t passes = 2 * 4, keys = 2 * 8 * 2, wide_keys = 2 * keys;
  EXPECT_EQ(at(expected(step), "cp", "receive"), passes * (2 * 2 * keys + 2 * 2 * wide_keys));
  EXPECT_EQ(at(expected(step), "cp", "gather"), 2 * 2 * 4 * kNumber);
  step.parallel.cp_comm = "all_gather";
  EXPECT_EQ(at(expected(step), "cp", "all_gather"), passes * 2 * 2 * 2 * keys);
  EXPECT_EQ(at(expected(step), "cp", "all_to_all"), passes * 2 * 2 * keys);
  step.parallel.cp_comm = "a2a";
  EXPECT_EQ(at(expected(step), "cp", "all_to_all"), passes * 2 * 4 * keys);
}

/// Between two parts of a model, four micro-batches go forward and their gradients back.
TEST(ExpectedTraffic, OfPipelines) {
  StepShape step = small_step(2, /*layers=*/4);
  step.parallel.pp = 2;
  const std::int64_t boundary = 4 * 4 * 8 * kElement, numbers = 2 * 2 * (4 + 2) * kNumber;
  EXPECT_EQ(expected(step),
            (TrafficBytes{{{"pp", "receive"}, 2 * boundary}, {{"pp", "gather"}, numbers}}));
  step.parallel.vpp = 2;
  EXPECT_EQ(at(expected(step), "pp", "receive"), 3 * 2 * boundary);
  step.definition.model.tie_embeddings = true;
  EXPECT_EQ(at(expected(step), "pp", "receive"), 3 * 2 * boundary + 2 * kMatrix * kElement);
}

/// Two micro-batches of four tokens with two choices on both ranks.
TEST(ExpectedTraffic, OfExperts) {
  StepShape step = small_moe_step(2);
  step.parallel.ep = 2;
  const std::int64_t passes = 2 * 2, row = 8 * kElement;
  EXPECT_EQ(at(expected(step), "ep", "gather"), passes * 2 * 4 * kNumber);
  EXPECT_EQ(at(expected(step), "ep", "all_to_all"), passes * 8 * (4 * row + 2 * kElement));
  step.definition.moe.dispatcher = "allgather";
  EXPECT_EQ(at(expected(step), "etp_ep", "gather"), passes * 2 * 5 * kNumber + 2 * 2 * kNumber);
  EXPECT_EQ(at(expected(step), "etp_ep", "all_gather"),
            passes * 2 * (4 * (2 * row + 4) + 8 * (4 + kElement)));
  EXPECT_EQ(at(expected(step), "etp_ep", "all_to_all"), passes * 2 * (4 * 2 * row + 8 * kElement));

  step = small_moe_step(2);
  step.parallel.etp = 2;
  EXPECT_EQ(at(expected(step), "etp", "all_gather"), 0);
  EXPECT_EQ(at(expected(step), "etp", "all_to_all"), passes * 2 * 8 * (4 * row + 2 * kElement));
}

/// Both ranks send 8 rows: the busier one gets 8 at least, and all 16 at most.
TEST(ExpectedTraffic, OfABudgetDependsOnTheRouterInBetween) {
  StepShape step = small_moe_step(2);
  step.parallel.ep = 2;
  const std::int64_t passes = 2 * 2, once = at(expected(step), "ep", "all_to_all");
  const std::int64_t twice = once + passes * 8 * (8 * kElement + kElement);
  const auto with_budget = [&](std::int64_t budget) {
    step.definition.moe.receive_budget = budget;
    const ExpectedTraffic traffic = expected_traffic(step);
    return std::pair(at(traffic.least, "ep", "all_to_all"), at(traffic.most, "ep", "all_to_all"));
  };
  EXPECT_EQ(with_budget(7), std::pair(twice, twice));
  EXPECT_EQ(with_budget(8), std::pair(once, twice));
  EXPECT_EQ(with_budget(15), std::pair(once, twice));
  EXPECT_EQ(with_budget(16), std::pair(once, once));
}

/// One sequence of 16 tokens on four ranks, of each of which go to ep 4 rows and 2 weights. Padded
/// to 5 rows, 6 experts get 30, of which no rank has a whole share; else one expert or all get 5.
TEST(ExpectedTraffic, OfACapacity) {
  StepShape step = small_moe_step(4);
  step.definition.model.sequence_length = 16;
  step.parallel.cp = 4;
  step.parallel.ep = 2;
  MoeConfig& moe = step.definition.moe;
  moe.num_experts = 6;
  moe.top_k = 1;
  moe.capacity_factor = 1.8;
  const std::int64_t row = 4 * 8 * kElement + 2 * kElement, micro_batches = 4;
  const ExpectedTraffic dropping = expected_traffic(step);
  EXPECT_EQ(at(dropping.least, "ep", "all_to_all"), micro_batches * 5 * row);
  EXPECT_EQ(at(dropping.most, "ep", "all_to_all"), micro_batches * 16 * row);
  moe.pad_to_capacity = true;
  EXPECT_EQ(at(expected(step), "ep", "all_to_all"), micro_batches * 30 * row);
  EXPECT_EQ(at(expected(step), "tp_cp", "all_gather"), micro_batches * 4 * 16 * 6 * kElement);
}

/// A window is on both pairs of ranks, and all that an expert keeps may come from one of them.
TEST(ExpectedTraffic, OfACapacityBoundsTheBusiestRank) {
  StepShape step = small_moe_step(4);
  step.definition.model.sequence_length = 64;
  step.parallel.cp = 4;
  step.parallel.ep = 2;
  step.definition.moe.capacity_factor = 0.25;  // 8 rows of each of two experts
  const auto most = [&](std::int64_t budget) {
    step.definition.moe.receive_budget = budget;
    return at(expected_traffic(step).most, "ep", "all_to_all");
  };
  EXPECT_EQ(most(16), most(0));
  EXPECT_GT(most(15), most(0));
}

/// A dense MLP of 12 beside the experts: rows enter and leave as they do there, and its gradients
/// and the gate's are summed with the others.
TEST(ExpectedTraffic, OfSharedExperts) {
  StepShape step = small_moe_step(2);
  const TrafficBytes plain = expected(step);
  MoeConfig& moe = step.definition.moe;
  moe.shared_ffn_hidden_size = 12;
  const auto more = [&](const TrafficBytes& than, const char* group, const char* collective) {
    return at(expected(step), group, collective) - at(than, group, collective);
  };
  EXPECT_EQ(more(plain, "dp_cp", "all_to_all"), 2 * kMlp * kElement);
  EXPECT_EQ(more(plain, "dp_cp", "all_gather"), 2 * kMlp * kElement);
  moe.shared_gate = true;
  EXPECT_EQ(more(plain, "dp_cp", "all_to_all"), 2 * (kMlp + 8) * kElement);

  moe = small_moe_step(2).definition.moe;
  step.parallel.tp = 2;
  step.parallel.sp = true;
  const TrafficBytes over_tp = expected(step);
  moe.shared_ffn_hidden_size = 12;
  moe.shared_gate = true;
  const std::int64_t passes = 2 * 4, rows = 4 * 8 * kElement;
  EXPECT_EQ(more(over_tp, "tp", "all_gather"), passes * 3 * rows);
  EXPECT_EQ(more(over_tp, "tp", "all_to_all"), passes * 2 * rows);
  EXPECT_EQ(more(over_tp, "tp_dp_cp", "all_to_all"), 2 * 8 * kElement) << "the gate";
  step.recompute = {"selective", {"shared_experts"}};
  EXPECT_EQ(more(over_tp, "tp", "all_gather"), passes * 4 * rows);
  EXPECT_EQ(more(over_tp, "tp", "all_to_all"), passes * 3 * rows);
}

/// Per sequence, a count and a sum of scores for each of four experts, once whichever losses want
/// them; two sequences in each of two micro-batches.
TEST(ExpectedTraffic, OfBalanceOverSequences) {
  StepShape step = small_moe_step(2);
  step.parallel.cp = 2;
  step.micro_size = 2;
  MoeConfig& moe = step.definition.moe;
  const std::int64_t sums = 2 * 2 * (2 * 2) * 4 * kNumber;
  EXPECT_EQ(at(expected(step), "tp_cp", "all_to_all"), 0);
  moe.balancing = {"seq_aux_loss"};
  moe.aux_loss_coefficients = {0.1};
  EXPECT_EQ(at(expected(step), "tp_cp", "all_to_all"), sums);
  EXPECT_EQ(at(expected(step), "tp_cp", "all_gather"), sums);
  moe.balancing = {"seq_aux_loss", "aux_loss"};
  moe.aux_loss_coefficients = {0.1, 0.1};
  EXPECT_EQ(at(expected(step), "tp_cp", "all_to_all"), sums);
  step.recompute = {"selective", {"moe"}};
  EXPECT_EQ(at(expected(step), "tp_cp", "all_to_all"), 2 * sums);
}

/// Windows of a sequence: a sum for each of four experts, once a round, of which there are 1 to
/// 100.
TEST(ExpectedTraffic, OfSinkhorn) {
  StepShape step = small_moe_step(2);
  step.parallel.cp = 2;
  step.micro_size = 2;
  step.definition.moe.balancing = {"sinkhorn"};
  const std::int64_t once = 2 * 2 * 2 * 4 * kNumber;
  const ExpectedTraffic traffic = expected_traffic(step);
  for (const char* collective : {"all_to_all", "all_gather"}) {
    EXPECT_EQ(at(traffic.least, "tp_cp", collective), once);
    EXPECT_EQ(at(traffic.most, "tp_cp", collective), 100 * once);
  }
  step.definition.moe.window = 2;
  EXPECT_EQ(at(expected_traffic(step).least, "tp_cp", "all_to_all"), once / 2);
}

/// Each rank draws it for its tokens.
TEST(ExpectedTraffic, JitterCostsNothing) {
  StepShape step = small_moe_step(4);
  step.parallel.cp = 2;
  step.parallel.ep = 2;
  const TrafficBytes plain = expected(step);
  step.definition.moe.input_jitter = 0.1;
  EXPECT_EQ(expected(step), plain);
}

/// A count for each of four experts over the ranks that share a micro-batch and over dp, not where
/// forward is done again.
TEST(ExpectedTraffic, OfTheRunningLoad) {
  StepShape step = small_moe_step(4);
  step.parallel.cp = 2;
  MoeConfig& moe = step.definition.moe;
  moe.balancing = {"global_aux_loss"};
  moe.aux_loss_coefficients = {0.1};
  EXPECT_EQ(at(expected(step), "dp", "all_to_all"), 0);
  moe.global_aux_counts = "running";
  const std::int64_t sums = 4 * 2 * 4 * kNumber;
  for (int pass = 0; pass < 2; ++pass) {
    for (const char* group : {"tp_cp", "dp"}) {
      EXPECT_EQ(at(expected(step), group, "all_to_all"), sums) << group;
      EXPECT_EQ(at(expected(step), group, "all_gather"), sums) << group;
    }
    step.recompute = {"full"};
  }
}

TEST(ExpectedTraffic, CountsThousandsOfRanks) {
  StepShape step;
  step.ranks = 16384;
  step.global_size = 8192;
  step.parallel = {.tp = 8, .cp = 4, .pp = 16, .ep = 64, .etp = 1, .sp = true, .layout = ""};
  ModelConfig& model = step.definition.model;
  model.vocab_size = 128000;
  model.sequence_length = 8192;
  model.hidden_size = 8192;
  model.num_layers = 64;
  model.num_heads = 64;
  model.num_kv_heads = 8;
  MoeConfig& moe = step.definition.moe;
  moe.num_experts = 256;
  moe.top_k = 8;
  moe.ffn_hidden_size = 2048;
  const GroupBytes bytes = bytes_of_groups(expected(step));
  for (std::size_t i = 0; i < bytes.size(); ++i) EXPECT_GE(bytes[i], 0) << kGroupNames[i];
  EXPECT_GT(bytes[8], std::int64_t{1} << 40) << kGroupNames[8];
}

TEST(DescribeTraffic, NamesGroupsThatHaveAnyInTheirOrder) {
  GroupBytes least{}, most{};
  least[0] = most[0] = 5;
  least[5] = 2048;
  most[5] = 3072;
  const std::vector<std::pair<std::string, std::string>> expected = {
      {"tp", "5 B (5 bytes)"}, {"dp_cp", "2.0 KiB (2048 bytes) to 3.0 KiB (3072 bytes)"}};
  EXPECT_EQ(describe_traffic(least, most), expected);
}

}  // namespace
}  // namespace konclave
