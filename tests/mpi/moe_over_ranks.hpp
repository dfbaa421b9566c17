#pragma once

#include "tests/mpi/moe_case.hpp"
#include "tests/support/delayed_transport.hpp"
#include "tests/support/recording_transport.hpp"
#include "tests/unit/model/workbench.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <span>

/// An MoE layer over all ranks of a test, beside the same layer on one.
namespace konclave {

/// An MoE layer with weights of a seed, forward and backward of some tokens.
struct Moe : Workbench {
  Moe(const MoeCase& wanted, const Groups& groups, const std::vector<int>& offsets,
      const std::vector<int>& places, BalanceScale scale)
      : layer("moe", /*index=*/0, moe_config(wanted), groups, storage()) {
    step = moe_step(offsets, kWindowTokens, /*layers=*/1, wanted.experts, places);
    step.scale = scale;
    step.running = {tensors.poisoned(DType::fp64, 1, wanted.experts).as2<double>(), /*layers=*/1};
    sums = {DType::fp64,
            step.statistics.sums.data(),
            {1, MoeStatistics::columns(wanted.experts), 1},
            2};
    layer.visit_parameters([&](Parameter& parameter) {
      parameters.emplace(parameter.name(), &parameter);
      parameter.initialise(exec, /*seed=*/3);
    });
    if (!wanted.logits.empty()) steer(wanted);
    layer.prepare(exec, operations);
    for (const auto& [name, parameter] : parameters) {
      parameter->restart_gradient();
      parameter->grad_to_add_to(exec);
    }
    y = tensors.poisoned(wanted.type, offsets.back(), kMoeHidden);
    dx = tensors.poisoned(wanted.type, offsets.back(), kMoeHidden);
  }
  /// Inputs have a 1 in column 0.
  void steer(const MoeCase& wanted) {
    const AnyView router = parameters.at("moe.router.weight")->value();
    std::vector<double> weight = to_doubles(exec, router);
    for (int e = 0; e < wanted.experts; ++e) {
      const auto logit = wanted.logits.find(e);
      weight[static_cast<std::size_t>(e) * kMoeHidden] =
          logit == wanted.logits.end() ? 0 : logit->second;
    }
    from_doubles(exec, weight, router);
  }
  void forward(const AnyIn& x) { layer.forward(context(), step, x, /*residual=*/{}, saved, y); }
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
class MoeOverRanks {
 public:
  MoeOverRanks(const AllRanks& all, const MoeCase& wanted)
      : wanted_(wanted), all_(all), rank_(all.world.rank()), tokens_(wanted, all.grids) {
    const BalanceScale scale{1.0 / std::max(1, tokens_.windows()),
                             1.0 / std::max(1, tokens_.tokens()),
                             1.0 / std::max(1, tokens_.windows())};
    MoeCase plain = wanted_;
    plain.budget = 0;
    plain.dispatcher = "alltoall";
    whole = std::make_unique<Moe>(plain, Groups::alone(), tokens_.offsets(), tokens_.all_places(),
                                  scale);
    mine = std::make_unique<Moe>(wanted_, recorded(), tokens_.offsets_of(rank_),
                                 tokens_.places_of(rank_), scale);
    mine->step.windows.first_token = tokens_.first_token_of(rank_);
    x_ = whole->tensors.random("x", wanted.type, tokens_.tokens(), kMoeHidden);
    if (!wanted_.logits.empty()) put_ones();
    dy_ = whole->tensors.random("dy", wanted.type, tokens_.tokens(), kMoeHidden);
    my_x_ = own(x_);
    my_dy_ = own(dy_);
  }

  void forward() {
    whole->forward(x_);
    mine->forward(my_x_);
  }
  void backward() {
    whole->backward(dy_);
    mine->backward(my_dy_);
  }
  void expect_same() { expect_close(tolerance(DType::fp64)); }
  void expect_close(const Tolerance& allowed) {
    forward();
    backward();
    const ExecSpace& exec = whole->exec;
    EXPECT_TRUE(close(exec, mine->y, own(whole->y), allowed)) << "y";
    EXPECT_TRUE(close(exec, mine->dx, own(whole->dx), allowed)) << "dx";
    for (const auto& [name, parameter] : mine->parameters) {
      std::vector<double> sum = mine->gradient(name);
      const bool routed = parameter->spec().routed;
      const bool of_all_tp = parameter->placement().partial_over_tp;
      const Groups& groups = all_.groups;
      (routed      ? *groups.expert_dp
       : of_all_tp ? *groups.tp_dp_cp
                   : *groups.dp_cp)
          .sum(std::span(sum));
      EXPECT_TRUE(close(sum, part_of(whole->gradient(name), *parameter), allowed, 0.1)) << name;
    }
    std::vector<double> sums = to_doubles(exec, mine->sums);
    all_.groups.world->sum(std::span(sums));
    EXPECT_TRUE(close(sums, to_doubles(exec, whole->sums), allowed)) << "statistics";
  }

  /// Rows that the tokens of a rank have for each expert.
  std::vector<std::int64_t> rows_of(int rank) const {
    const auto& chosen = whole->saved.router.experts;
    const std::vector<int> experts =
        to_host(whole->exec, View1<const int>(chosen.data(), chosen.size()));
    std::vector<std::int64_t> rows(static_cast<std::size_t>(wanted_.experts), 0);
    for (const int token : tokens_.tokens_of(rank)) {
      for (int k = 0; k < wanted_.top_k; ++k) {
        ++rows[static_cast<std::size_t>(
            experts[static_cast<std::size_t>(token * wanted_.top_k + k)])];
      }
    }
    return rows;
  }
  /// Rows that the tokens of a rank have for the experts of rank `ep_rank` of ep.
  std::int64_t rows(int rank, int ep_rank) const {
    const std::vector<std::int64_t> all = rows_of(rank);
    return std::accumulate(all.begin() + std::ptrdiff_t{ep_rank} * local(),
                           all.begin() + std::ptrdiff_t{ep_rank + 1} * local(), std::int64_t{0});
  }
  /// The ranks of this rank's group along axes of the experts' grid.
  std::vector<int> members(const std::vector<std::string>& along) const {
    return all_.grids.experts.members(rank_, along);
  }
  /// Rows that some ranks have for the experts of this one.
  std::int64_t rows_here(const std::vector<int>& ranks) const {
    std::int64_t sum = 0;
    for (const int rank : ranks) sum += rows(rank, ep_rank());
    return sum;
  }

  int ep_rank() const { return all_.groups.ep->rank(); }
  int local() const { return wanted_.experts / all_.groups.ep->size(); }
  std::int64_t my_tokens() const { return my_x_.extent(0); }
  const MoeTokens& tokens() const { return tokens_; }
  const std::vector<Dispatch::Round>& rounds() const { return mine->saved.dispatch->rounds(); }

  std::vector<TransportCall> log;  ///< of etp, ep, etp_ep and tp_cp
  std::unique_ptr<Moe> whole, mine;

 private:
  Groups recorded() {
    Groups groups = all_.groups;
    groups.parallel.overlap_ep = wanted_.overlap;
    if (wanted_.overlap) {
      const auto clock = std::make_shared<VirtualClock>();
      for (Groups::Group* group : {&groups.etp, &groups.ep, &groups.etp_ep}) {
        *group = std::make_shared<DelayedTransport>(*group, clock, Link{0, /*bandwidth=*/1, true});
      }
    }
    for (Groups::Group* group : {&groups.etp, &groups.ep, &groups.etp_ep, &groups.tp_cp}) {
      *group = std::make_shared<RecordingTransport>(*group, log);
    }
    return groups;
  }
  /// The rows of this rank's tokens.
  AnyView own(const AnyView& all) const {
    const std::vector<double> values = to_doubles(whole->exec, all);
    std::vector<double> picked;
    for (const int token : tokens_.tokens_of(rank_)) {
      const auto row = values.begin() + std::ptrdiff_t{token} * kMoeHidden;
      picked.insert(picked.end(), row, row + kMoeHidden);
    }
    return mine->tensors.values(wanted_.type, picked,
                                static_cast<std::int64_t>(picked.size()) / kMoeHidden, kMoeHidden);
  }
  static std::vector<double> part_of(const std::vector<double>& all, const Parameter& parameter) {
    std::vector<double> part(static_cast<std::size_t>(parameter.size()));
    for (const ShardRun& run : shard_runs(parameter.spec().shape, parameter.shard())) {
      std::copy_n(all.begin() + run.in_whole, run.count, part.begin() + run.in_shard);
    }
    return part;
  }
  void put_ones() {
    std::vector<double> values = to_doubles(whole->exec, x_);
    for (std::size_t i = 0; i < values.size(); i += kMoeHidden) values[i] = 1;
    from_doubles(whole->exec, values, x_);
  }

  MoeCase wanted_;
  const AllRanks& all_;
  int rank_;
  MoeTokens tokens_;
  AnyView x_, dy_, my_x_, my_dy_;
};

/// f(ranks) for each mapping of this job's ranks.
template <typename F> void for_each_moe_mapping(F&& f, int experts = 12) {
  for (const ParallelConfig& parallel : moe_mappings(Communicator::world().size(), experts)) {
    SCOPED_TRACE(testing::Message()
                 << "rank " << Communicator::world().rank() << ", tp " << parallel.tp << ", cp "
                 << parallel.cp << ", etp " << parallel.etp << ", ep " << parallel.ep);
    f(AllRanks(parallel));
  }
}

}  // namespace konclave
