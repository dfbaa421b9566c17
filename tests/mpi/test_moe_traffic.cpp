#include "tests/mpi/moe_over_ranks.hpp"

namespace konclave {
namespace {

constexpr std::int64_t kValue = sizeof(double), kRow = kMoeHidden * kValue, kInt = sizeof(int);
constexpr std::int64_t kCount = sizeof(std::int64_t);

/// Bytes that a rank receives, by group and collective; what is never called is not in it.
using Bytes = std::map<std::string, std::int64_t>;

Bytes received(const std::vector<TransportCall>& log) {
  Bytes bytes;
  for (const TransportCall& call : log) {
    bytes[call.group + " " + call.collective] += static_cast<std::int64_t>(call.received_bytes);
  }
  return bytes;
}

/// The formulas, for an MoE layer of 12 experts and K choices on one rank.
class Expected {
 public:
  Expected(const AllRanks& all, const MoeOverRanks& layers)
      : etp_(all.groups.etp->size()),
        ep_(all.groups.ep->size()),
        sharing_(all.groups.tp_cp->size()),
        sharing_rank_(all.groups.tp_cp->rank()),
        layers_(layers),
        tokens_(layers.my_tokens()),
        sent_(sum(layers.rows_of(all.world.rank()))),
        arrived_(layers.rows_here(layers.members({"ep"}))),
        rows_(layers.rows_here(layers.members({"etp", "ep"}))) {
    for (const int rank : layers.members({"etp", "ep"})) {
      all_tokens_ += static_cast<std::int64_t>(layers.tokens().tokens_of(rank).size());
      all_sent_ += sum(layers.rows_of(rank));
    }
  }

  Bytes all_to_all_forward() const {
    Bytes bytes = balance();
    if (ep_ > 1) bytes["ep gather"] = ep_ * 12 * kCount;
    if (etp_ > 1) bytes["etp gather"] = etp_ * ep_ * 12 * kCount;
    bring(bytes, kRow + kValue);
    give_back(bytes, kRow);
    return bytes;
  }
  /// With several rounds rows and weights go once more.
  Bytes all_to_all_backward(bool again) const {
    Bytes bytes;
    if (again) bring(bytes, kRow + kValue);
    bring(bytes, kRow);
    give_back(bytes, kRow + kValue);
    return bytes;
  }
  Bytes all_gather_forward() const {
    Bytes bytes = balance();
    if (etp_ * ep_ == 1) return bytes;
    bytes["etp_ep gather"] = etp_ * ep_ * 13 * kCount;
    bytes["etp_ep all_gather"] = all_tokens_ * (kInt + kRow) + all_sent_ * (kInt + kValue);
    bytes["etp_ep all_to_all"] = etp_ * ep_ * tokens_ * kRow;
    return bytes;
  }
  Bytes all_gather_backward() const {
    if (etp_ * ep_ == 1) return {};
    return {{"etp_ep all_gather", all_tokens_ * kRow},
            {"etp_ep all_to_all", etp_ * ep_ * (tokens_ * kRow + sent_ * kValue)}};
  }

 private:
  static std::int64_t sum(const std::vector<std::int64_t>& values) {
    return std::accumulate(values.begin(), values.end(), std::int64_t{0});
  }
  /// Counts and sums of scores: each rank adds up a slice, which all then get.
  Bytes balance() const {
    if (sharing_ == 1) return {};
    const std::int64_t size = 2 * 12 * layers_.mine->step.windows.count;
    const std::int64_t slice =
        (sharing_rank_ + 1) * size / sharing_ - sharing_rank_ * size / sharing_;
    return {{"tp_cp all_to_all", sharing_ * slice * kValue}, {"tp_cp all_gather", size * kValue}};
  }
  void bring(Bytes& bytes, std::int64_t row) const {
    if (ep_ > 1) bytes["ep all_to_all"] += arrived_ * row;
    if (etp_ > 1) bytes["etp all_to_all"] += rows_ * row;
  }
  void give_back(Bytes& bytes, std::int64_t row) const {
    if (etp_ > 1) bytes["etp all_to_all"] += etp_ * arrived_ * row;
    if (ep_ > 1) bytes["ep all_to_all"] += sent_ * row;
  }

  std::int64_t etp_, ep_, sharing_, sharing_rank_;
  const MoeOverRanks& layers_;
  std::int64_t tokens_, sent_, arrived_, rows_;
  std::int64_t all_tokens_ = 0, all_sent_ = 0;  ///< of etp x ep
};

TEST(MoeTraffic, AllToAllBringsTheRowsRoutedHere) {
  for_each_moe_mapping([](const AllRanks& all) {
    for (const auto& [budget, overlap] :
         std::vector<std::pair<std::int64_t, bool>>{{0, false}, {4, false}, {0, true}, {4, true}}) {
      SCOPED_TRACE(testing::Message() << "budget " << budget << (overlap ? ", overlap" : ""));
      MoeOverRanks layers(all, {.budget = budget, .overlap = overlap});
      layers.forward();
      const Expected expected(all, layers);
      EXPECT_EQ(received(layers.log), expected.all_to_all_forward());
      layers.log.clear();
      layers.backward();
      EXPECT_EQ(received(layers.log),
                expected.all_to_all_backward(!layers.mine->saved.dispatch->kept()));
    }
  });
}

TEST(MoeTraffic, AllGatherBringsAllRows) {
  for_each_moe_mapping([](const AllRanks& all) {
    for (const bool overlap : {false, true}) {
      MoeOverRanks layers(all, {.dispatcher = "allgather", .overlap = overlap});
      layers.forward();
      const Expected expected(all, layers);
      EXPECT_EQ(received(layers.log), expected.all_gather_forward());
      layers.log.clear();
      layers.backward();
      EXPECT_EQ(received(layers.log), expected.all_gather_backward());
    }
  });
}

TEST(ReceiveBudget, NoExchangeBringsMoreRowsToTheExperts) {
  for_each_moe_mapping([](const AllRanks& all) {
    for (const std::int64_t budget : {3, 4}) {
      SCOPED_TRACE(testing::Message() << "budget " << budget);
      MoeOverRanks layers(all, {.budget = budget, .top_k = 1, .logits = {{0, 50}}});
      layers.forward();
      layers.backward();
      const std::int64_t rows = layers.rows_here(layers.members({"etp", "ep"}));
      const std::int64_t most = all.groups.etp_ep->max(rows);
      EXPECT_TRUE(most > budget || all.groups.etp_ep->size() < all.world.size());
      EXPECT_EQ(static_cast<std::int64_t>(layers.rounds().size()),
                std::max<std::int64_t>(1, (most + budget - 1) / budget))
          << "as few as can be, the same on all ranks";
      std::int64_t sum = 0;
      for (const Dispatch::Round& round : layers.rounds()) {
        EXPECT_LE(round.rows, budget);
        sum += round.rows;
      }
      EXPECT_EQ(sum, rows) << "nothing is dropped";
      for (const TransportCall& call : layers.log) {
        const bool comes = call.collective == "all_to_all" && call.group == "ep";
        EXPECT_TRUE(!comes || call.received_rows <= budget) << call.received_rows;
      }
    }
  });
}

/// Peaks of memory of a rank, in bytes.
struct Peaks {
  std::int64_t scratch = 0, all = 0;
};

/// Forward and backward of 4096 tokens of all ranks, every one of them for the first expert.
Peaks peaks_under_budget(const AllRanks& all, std::int64_t budget) {
  MoeLayerConfig wanted = moe_config({.budget = budget, .top_k = 1});
  wanted.hidden = 32;
  wanted.moe.ffn_hidden_size = 128;
  const int tokens = 4096 / all.world.size();
  Workbench bench;
  MoeLayer layer("moe", 0, wanted, all.groups, bench.storage());
  layer.visit_parameters([&](Parameter& parameter) {
    parameter.initialise(bench.exec, 3);
    bench.set(parameter.grad(), 0);
    if (parameter.spec().routed) return;
    bench.set(parameter.value(), 0);
    bench.set(parameter.value().slice(0, 1), 1);  // inputs are positive
  });
  layer.prepare(bench.exec, bench.operations);
  MoeStep step = bench.moe_step({0, tokens}, tokens, /*layers=*/1, wanted.moe.num_experts);
  step.scale = {};
  const AnyView x = bench.tensors.poisoned(DType::fp64, tokens, wanted.hidden);
  bench.set(x, 1);
  const AnyView y = bench.tensors.poisoned(DType::fp64, tokens, wanted.hidden);
  MoeLayer::Saved saved;
  layer.forward(bench.context(), step, x, /*residual=*/{}, saved, y);
  layer.backward(bench.context(), saved, y, y);
  EXPECT_EQ(
      to_host(bench.exec,
              View1<const double>(
                  step.statistics.sums.data(),
                  step.statistics.sums.size()))[static_cast<std::size_t>(MoeStatistics::chosen(0))],
      tokens)
      << "all go to the first expert";
  return {bench.account.peak(MemoryClass::buffers), bench.account.peak_total()};
}

TEST(ReceiveBudget, BoundsTheMemoryOfTheBusiestRank) {
  for_each_moe_mapping([](const AllRanks& all) {
    if (all.groups.tp_cp->size() > 1) return;
    const Peaks without = peaks_under_budget(all, 0), with = peaks_under_budget(all, 128);
    if (all.groups.ep->rank() != 0) return;
    EXPECT_LT(with.scratch, without.scratch);
    EXPECT_LT(with.all, without.all);
  });
}

}  // namespace
}  // namespace konclave
