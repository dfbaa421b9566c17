#include "moe/moe_layer.hpp"
#include "tests/mpi/all_ranks.hpp"
#include "tests/support/recording_transport.hpp"
#include "tests/unit/model/workbench.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <span>

namespace konclave {
namespace {

constexpr int kHidden = 5, kFfn = 3;

/// A layer over all ranks, each with its part of the tokens.
struct Case {
  int ep = 1;
  int experts = 12, top_k = 2;
  std::int64_t budget = 0;
  std::vector<int> tokens = {9, 4, 7, 5};  ///< of each rank
  std::map<int, double> logits = {};       ///< added to those of every token, for these experts
};

MoeLayerConfig config(const Case& wanted) {
  MoeConfig moe;
  moe.num_experts = wanted.experts;
  moe.top_k = wanted.top_k;
  moe.ffn_hidden_size = kFfn;
  moe.balancing = {"aux_loss"};
  moe.aux_loss_coefficients = {0.3};
  moe.z_loss_coefficient = 0.05;
  moe.receive_budget = wanted.budget;
  return {moe, kHidden, DType::fp64, 0.5, 0.5};
}

/// An MoE layer with weights of a seed, forward and backward of some tokens.
struct Moe : Workbench {
  Moe(const Case& wanted, const Groups& groups, const std::vector<int>& windows, BalanceScale scale)
      : layer("moe", /*index=*/0, config(wanted), groups, storage()) {
    step.windows = {static_cast<int>(windows.size()) - 1, tensors.integers(windows)};
    step.scale = scale;
    sums = tensors.poisoned(DType::fp64, 1, 2 + wanted.experts);
    set(sums, 0);
    step.statistics.sums = sums.as2<double>();
    layer.visit_parameters([&](Parameter& parameter) {
      parameters.emplace(parameter.name(), &parameter);
      parameter.initialise(exec, /*seed=*/3);
      set(parameter.grad(), 0);
    });
    if (!wanted.logits.empty()) steer(wanted);
    layer.prepare(exec, operations);
    const int count = windows.back();
    y = tensors.poisoned(DType::fp64, count, kHidden);
    dx = tensors.poisoned(DType::fp64, count, kHidden);
  }
  /// Inputs have a 1 in column 0.
  void steer(const Case& wanted) {
    const AnyView router = parameters.at("moe.router.weight")->value();
    std::vector<double> weight = to_doubles(exec, router);
    for (int e = 0; e < wanted.experts; ++e) {
      const auto logit = wanted.logits.find(e);
      weight[static_cast<std::size_t>(e) * kHidden] =
          logit == wanted.logits.end() ? 0 : logit->second;
    }
    from_doubles(exec, weight, router);
  }
  void forward(const AnyIn& x) { layer.forward(context(), step, x, saved, y); }
  void backward(const AnyIn& dy) { layer.backward(context(), saved, dy, dx); }

  std::vector<double> gradient(const std::string& name) const {
    return to_doubles(exec, parameters.at(name)->grad());
  }

  MoeLayer layer;
  MoeStep step;
  MoeLayer::Saved saved;
  std::map<std::string, Parameter*> parameters;
  AnyView sums, y, dx;
};

/// The layer over all ranks beside the same on this rank alone, with the tokens of all.
class Comparison {
 public:
  explicit Comparison(const Case& wanted)
      : wanted_(wanted), all_(wanted.ep), rank_(all_.world.rank()), firsts_(1, 0) {
    for (int r = 0; r < all_.world.size(); ++r) {
      firsts_.push_back(firsts_.back() + wanted_.tokens[static_cast<std::size_t>(r)]);
    }
    Groups groups = all_.groups;
    groups.ep = std::make_shared<RecordingTransport>(all_.groups.ep, log);
    const BalanceScale scale{1.0 / all_.world.size(), 1.0 / std::max(1, firsts_.back())};
    Case unbounded = wanted_;
    unbounded.budget = 0;
    whole = std::make_unique<Moe>(unbounded, Groups::alone(), firsts_, scale);
    mine = std::make_unique<Moe>(wanted_, groups, std::vector<int>{0, tokens()}, scale);
    x_ = whole->tensors.random("x", DType::fp64, firsts_.back(), kHidden);
    if (!wanted_.logits.empty()) put_ones();
    dy_ = whole->tensors.random("dy", DType::fp64, firsts_.back(), kHidden);
  }

  void forward() {
    whole->forward(x_);
    mine->forward(own(x_));
  }
  void backward() {
    whole->backward(dy_);
    mine->backward(own(dy_));
  }

  void expect_same() {
    SCOPED_TRACE(testing::Message() << "rank " << rank_ << " of " << all_.world.size() << ", ep "
                                    << wanted_.ep << ", budget " << wanted_.budget);
    const ExecSpace& exec = whole->exec;
    const Tolerance allowed = tolerance(DType::fp64);
    EXPECT_TRUE(close(exec, mine->y, own(whole->y), allowed)) << "y";
    EXPECT_TRUE(close(exec, mine->dx, own(whole->dx), allowed)) << "dx";
    for (const auto& [name, parameter] : mine->parameters) {
      std::vector<double> sum = mine->gradient(name);
      const bool routed = parameter->spec().routed;
      (routed ? *all_.groups.expert_dp : *all_.groups.world).sum(std::span(sum));
      const AnyView all = whole->parameters.at(name)->grad();
      const AnyView part = routed ? all.slice(std::int64_t{ep_rank()} * local(), local()) : all;
      EXPECT_TRUE(close(sum, to_doubles(exec, part), allowed)) << name;
    }
    std::vector<double> sums = to_doubles(exec, mine->sums);
    all_.groups.world->sum(std::span(sums));
    EXPECT_TRUE(close(sums, to_doubles(exec, whole->sums), allowed)) << "statistics";
  }

  /// Rows that the tokens of rank `source` of the group ep have for the experts of this rank.
  std::int64_t rows_from(int source) const {
    const std::vector<int> group = all_.grids.experts.members(rank_, {"ep"});
    const auto& chosen = whole->saved.router.experts;
    const std::vector<int> experts =
        to_host(whole->exec, View1<const int>(chosen.data(), chosen.size()));
    const auto at = [&](int token) {
      return experts.begin() + std::ptrdiff_t{token} * wanted_.top_k;
    };
    const auto sender = static_cast<std::size_t>(group[static_cast<std::size_t>(source)]);
    return std::count_if(at(firsts_[sender]), at(firsts_[sender + 1]),
                         [&](int expert) { return expert / local() == ep_rank(); });
  }

  /// Rows for the experts of this rank, and those of the rank of its group with the most.
  std::int64_t rows() const {
    std::int64_t all = 0;
    for (int source = 0; source < wanted_.ep; ++source) all += rows_from(source);
    return all;
  }
  std::int64_t most_rows() const { return all_.groups.ep->max(rows()); }

  int ep_rank() const { return all_.groups.ep->rank(); }
  int local() const { return wanted_.experts / wanted_.ep; }
  int tokens() const { return wanted_.tokens[static_cast<std::size_t>(rank_)]; }
  const std::vector<DispatchPlan::Round>& rounds() const { return mine->saved.dispatch.rounds; }

  std::vector<TransportCall> log;  ///< of the group ep
  std::unique_ptr<Moe> whole, mine;

 private:
  AnyView own(const AnyView& view) const {
    return view.slice(firsts_[static_cast<std::size_t>(rank_)], tokens());
  }
  void put_ones() {
    std::vector<double> values = to_doubles(whole->exec, x_);
    for (std::size_t i = 0; i < values.size(); i += kHidden) values[i] = 1;
    from_doubles(whole->exec, values, x_);
  }

  Case wanted_;
  AllRanks all_;
  int rank_;
  std::vector<int> firsts_;  ///< first token of each rank
  AnyView x_, dy_;
};

int ranks() { return Communicator::world().size(); }

/// Runs a case with and without a budget, in one round and in several.
void expect_same_under_all_budgets(Case wanted) {
  for (const std::int64_t budget : {0, 1, 7, 1000}) {
    wanted.budget = budget;
    Comparison layers(wanted);
    layers.forward();
    layers.backward();
    layers.expect_same();
  }
}

TEST(MoeLayerOverRanks, IsTheLayerOfOneRank) {
  for (const int ep : ep_sizes(ranks())) {
    expect_same_under_all_budgets({.ep = ep});
    expect_same_under_all_budgets({.ep = ep, .top_k = 1});
    expect_same_under_all_budgets({.ep = ep, .top_k = 12});
  }
}

TEST(MoeLayerOverRanks, ARankMayHaveNoTokens) {
  for (const int ep : ep_sizes(ranks())) {
    for (const std::vector<int>& tokens :
         {std::vector<int>{0, 6, 5, 3}, {6, 0, 5, 3}, {2, 3, 0, 0}, {0, 0, 0, 0}}) {
      expect_same_under_all_budgets({.ep = ep, .tokens = tokens});
    }
  }
}

TEST(MoeLayerOverRanks, AllTokensMayGoToOneExpert) {
  for (const int ep : ep_sizes(ranks())) {
    expect_same_under_all_budgets({.ep = ep, .top_k = 1, .logits = {{11, 50}}});
  }
}

TEST(MoeLayerOverRanks, AnExpertWithoutTokensHasAGradientOfZeros) {
  for (const int ep : ep_sizes(ranks())) {
    for (const std::int64_t budget : {0, 7}) {
      Comparison layers({.ep = ep, .budget = budget, .logits = {{1, -50}}});
      layers.forward();
      layers.backward();
      layers.expect_same();
      if (layers.ep_rank() != 1 / layers.local()) continue;
      for (const auto& [name, parameter] : layers.mine->parameters) {
        if (!parameter->spec().routed) continue;
        const AnyView idle = parameter->grad().slice(1 % layers.local(), 1);
        for (const double value : to_doubles(layers.mine->exec, idle)) EXPECT_EQ(value, 0) << name;
      }
    }
  }
}

TEST(MoeLayerOverRanks, ARankWhoseExpertsGetNothingHasGradientsOfZeros) {
  for (const int ep : ep_sizes(ranks())) {
    if (ep == 1) continue;
    for (const std::int64_t budget : {0, 7}) {
      Case wanted{.ep = ep, .budget = budget};
      for (int e = 12 - 12 / ep; e < 12; ++e) wanted.logits[e] = -50;
      Comparison layers(wanted);
      layers.forward();
      layers.backward();
      layers.expect_same();
      const bool idle = layers.ep_rank() == ep - 1;
      for (const auto& [name, parameter] : layers.mine->parameters) {
        if (!parameter->spec().routed) continue;
        const std::vector<double> gradient = layers.mine->gradient(name);
        EXPECT_EQ(std::all_of(gradient.begin(), gradient.end(), [](double g) { return g == 0; }),
                  idle)
            << name;
      }
      for (const DispatchPlan::Round& round : layers.rounds()) {
        EXPECT_TRUE(!idle || round.counts.received == 0);
      }
    }
  }
}

TEST(MoeLayerOverRanks, NothingIsPermutedWhereEachRankHasOneExpert) {
  for (const int ep : ep_sizes(ranks())) {
    for (const std::int64_t budget : {0, 1, 7}) {
      Comparison layers({.ep = ep, .experts = ep, .top_k = std::min(2, ep), .budget = budget});
      layers.forward();
      layers.backward();
      layers.expect_same();
      for (const DispatchPlan::Round& round : layers.rounds()) {
        EXPECT_EQ(round.arrival_of.size(), 0U);
        EXPECT_EQ(round.local_of.size(), 0U);
      }
    }
    if (ep == 1) continue;
    Comparison several({.ep = ep});
    several.forward();
    const auto rows = static_cast<std::size_t>(several.rounds().front().counts.received);
    EXPECT_EQ(several.rounds().front().arrival_of.size(), rows) << "with several it is needed";
  }
}

TEST(MoeLayerOverRanks, BytesReceivedAreThoseOfTheRowsRoutedHere) {
  for (const int ep : ep_sizes(ranks())) {
    Comparison layers({.ep = ep});
    layers.forward();
    if (ep == 1) {
      layers.backward();
      EXPECT_TRUE(layers.log.empty()) << "nothing is exchanged, not even counts";
      continue;
    }
    std::vector<std::int64_t> from;
    for (int source = 0; source < ep; ++source) from.push_back(layers.rows_from(source));
    const std::int64_t all = layers.rows();
    ASSERT_EQ(layers.log.size(), 4U) << "counts, rows, weights, and the way back";
    EXPECT_EQ(layers.log[0].collective, "gather");
    EXPECT_EQ(layers.log[0].sent_bytes, 12U * sizeof(std::int64_t));
    const TransportCall rows = layers.log[1], weights = layers.log[2], back = layers.log[3];
    EXPECT_EQ(rows.received_bytes, static_cast<std::size_t>(all) * kHidden * sizeof(double));
    EXPECT_EQ(rows.rows_from, from);
    EXPECT_EQ(weights.received_bytes, static_cast<std::size_t>(all) * sizeof(double));
    EXPECT_EQ(weights.rows_from, from);
    EXPECT_EQ(back.sent_bytes, rows.received_bytes);
    EXPECT_EQ(back.received_bytes, rows.sent_bytes);

    layers.log.clear();
    layers.backward();
    ASSERT_EQ(layers.log.size(), 3U) << "gradients of rows, and of rows and weights back";
    EXPECT_EQ(layers.log[0].received_bytes, rows.received_bytes);
    EXPECT_EQ(layers.log[0].rows_from, from);
    EXPECT_EQ(layers.log[1].sent_bytes, rows.received_bytes);
    EXPECT_EQ(layers.log[2].sent_bytes, weights.received_bytes);
  }
}

/// Rows at this rank's experts in each call of a round: those that come (true) and those that are
/// given back.
void expect_rows(std::span<const TransportCall> calls, const std::vector<bool>& comes,
                 std::int64_t budget, std::int64_t all) {
  ASSERT_EQ(calls.size() % comes.size(), 0U);
  std::vector<std::int64_t> sums(comes.size(), 0);
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const TransportCall& call = calls[i];
    const std::int64_t rows = comes[i % comes.size()] ? call.received_rows : call.sent_rows;
    EXPECT_LE(rows, budget) << "call " << i;
    sums[i % comes.size()] += rows;
  }
  EXPECT_EQ(sums, std::vector<std::int64_t>(comes.size(), all)) << "nothing is dropped";
}

TEST(ReceiveBudget, NoExchangeBringsMoreRowsToTheExperts) {
  for (const int ep : ep_sizes(ranks())) {
    if (ep == 1) continue;
    for (const std::int64_t budget : {1, 3, 4}) {
      SCOPED_TRACE(testing::Message() << "ep " << ep << ", budget " << budget);
      Comparison layers({.ep = ep, .top_k = 1, .budget = budget, .logits = {{0, 50}}});
      layers.forward();
      const auto rounds = static_cast<std::size_t>((layers.most_rows() + budget - 1) / budget);
      EXPECT_GT(rounds, 1U);
      EXPECT_EQ(layers.rounds().size(), rounds) << "as few as can be, the same on all ranks";
      ASSERT_EQ(layers.log.size(), 1 + 3 * rounds);
      expect_rows(std::span(layers.log).subspan(1), {true, true, false}, budget, layers.rows());

      layers.log.clear();
      layers.backward();
      ASSERT_EQ(layers.log.size(), 5 * rounds) << "rows and weights are sent again";
      expect_rows(layers.log, {true, true, true, false, false}, budget, layers.rows());
    }
  }
}

/// Peaks of memory of a rank, in bytes.
struct Peaks {
  std::int64_t scratch = 0, all = 0;
};

/// Forward and backward of 2048 tokens of all ranks, every one of them for the first expert.
Peaks peaks_under_budget(const AllRanks& all, std::int64_t budget) {
  MoeLayerConfig wanted = config({.top_k = 1, .budget = budget});
  wanted.hidden = 32;
  wanted.moe.ffn_hidden_size = 128;
  const int tokens = 2048 / all.world.size();
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
  const AnyView sums = bench.tensors.poisoned(DType::fp64, 1, 2 + wanted.moe.num_experts);
  bench.set(sums, 0);
  const MoeStep step{{1, bench.tensors.integers({0, tokens})}, {}, {sums.as2<double>()}};
  const AnyView x = bench.tensors.poisoned(DType::fp64, tokens, wanted.hidden);
  bench.set(x, 1);
  const AnyView y = bench.tensors.poisoned(DType::fp64, tokens, wanted.hidden);
  MoeLayer::Saved saved;
  layer.forward(bench.context(), step, x, saved, y);
  layer.backward(bench.context(), saved, y, y);
  EXPECT_EQ(to_doubles(bench.exec, sums)[2], tokens) << "all go to the first expert";
  return {bench.account.peak(MemoryClass::buffers), bench.account.peak_total()};
}

TEST(ReceiveBudget, BoundsTheMemoryOfTheBusiestRank) {
  for (const int ep : ep_sizes(ranks())) {
    const AllRanks all(ep);
    const Peaks without = peaks_under_budget(all, 0), with = peaks_under_budget(all, 128);
    if (all.groups.ep->rank() != 0) continue;
    EXPECT_LT(with.scratch, without.scratch) << "ep " << ep;
    EXPECT_LT(with.all, without.all) << "ep " << ep;
  }
}

}  // namespace
}  // namespace konclave
