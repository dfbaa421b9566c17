#include "train/optimizer.hpp"

#include "base/fault.hpp"
#include "base/rng.hpp"
#include "ops/elementwise.hpp"
#include "tensor/host_copy.hpp"
#include "train/packed_update.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>

namespace konclave {

namespace {

/// Whether the norm takes a piece's gradient from this rank.
bool counts(const Optimizer::State& state) {
  if (state.speaks) return true;
  return state.piece.parameter->placement().copy ? fault("grad_norm.tied_twice")
                                                 : fault("grad_norm.replicas");
}

/// The numbers of a piece's elements in the whole tensor. A shard is cut along one axis, so that
/// its runs are equally long and equally far from each other.
ops::ChanceRounding rounding_of(const ParameterPiece& piece) {
  const std::vector<ShardRun> runs =
      shard_runs(piece.parameter->spec().shape, piece.parameter->shard());
  const std::int64_t stride = runs.size() > 1 ? runs[1].in_whole - runs[0].in_whole : 0;
  return {fnv1a(piece.parameter->name()), runs.front().in_whole, runs.front().count, stride,
          piece.first};
}

}  // namespace

void Optimizer::order_for_forward(std::vector<Shared>& shared) {
  // Those of a parameter stay in their order, see exchange_of: of small ones, which come first, and
  // of each large one.
  const auto large = std::stable_partition(shared.begin(), shared.end(),
                                           [](const Shared& each) { return each.bucket->shared; });
  std::reverse(large, shared.end());
  for (auto first = large; first != shared.end();) {
    const Parameter* const parameter = first->bucket->pieces.front().parameter;
    const auto last = std::find_if(first, shared.end(), [&](const Shared& other) {
      return other.bucket->pieces.front().parameter != parameter;
    });
    std::reverse(first, last);
    first = last;
  }
}

Optimizer::Optimizer(const std::vector<GradBucket>& buckets, const Groups& groups,
                     const OptimizerConfig& config, const ParallelConfig& parallel,
                     const ExecSpace& exec, Arena& arena, MemoryAccount& account,
                     std::uint64_t seed)
    : config_(config),
      groups_(groups),
      seed_(seed),
      distributed_(parallel.distributed_optimizer),
      overlaps_(distributed_ && parallel.overlap_param_gather),
      queue_(account, "konclave::values_under_way", overlaps_ ? kBucketsUnderWay : 1) {
  const auto is_shared = [&](const GradBucket& bucket) {
    return distributed_ && bucket.group->size() > 1;
  };
  for (const GradBucket& bucket : buckets) {
    for (const ParameterPiece& piece : bucket.pieces) {
      if (piece.first > 0) continue;
      parameters_.push_back(piece.parameter);
      if (is_shared(bucket)) continue;
      add_state(bucket, {piece.parameter, 0, piece.parameter->size()}, /*owned=*/false, arena);
    }
  }
  whole_ = states_.size();
  for (const GradBucket& bucket : buckets) {
    if (!is_shared(bucket)) continue;
    const std::size_t first = states_.size();
    for (const ParameterPiece& piece : bucket.own()) {
      add_state(bucket, piece, /*owned=*/true, arena);
    }
    shared_.push_back({&bucket, first, states_.size()});
  }
  order_for_forward(shared_);
  reset(exec);
}

void Optimizer::add_state(const GradBucket& bucket, const ParameterPiece& piece, bool owned,
                          Arena& arena) {
  const ParameterSpec& spec = piece.parameter->spec();
  const Placement& placement = piece.parameter->placement();
  const DType type = accum_type(spec.type);
  const DType of_moments = type_of_moments(spec.type);
  const bool owned_over_tp = owned && bucket.over == GradBucket::Over::tp_dp_cp;
  const bool is_matrix = spec.shape.size() >= 2;
  states_.push_back(
      {piece,
       spec.type == type ? piece.of(piece.parameter->value()) : arena.make(type, piece.count),
       arena.make(of_moments, piece.count), arena.make(of_moments, piece.count),
       config_.decay == "all" || is_matrix, owned,
       !placement.copy && (!placement.on_all_tp || owned_over_tp || groups_.tp->rank() == 0),
       rounding_of(piece)});
}

void Optimizer::reset(const ExecSpace& exec) {
  for (const State& state : states_) {
    if (state.has_master()) {
      ops::cast(exec, state.piece.of(state.piece.parameter->value()), state.master);
    }
    ops::fill_zero(exec, state.first_moment);
    ops::fill_zero(exec, state.second_moment);
  }
}

ExchangeQueue::Exchange Optimizer::exchange_of(const ExecSpace& exec, Operations* operations,
                                               const Shared& shared, const Write& write) {
  const GradBucket& bucket = *shared.bucket;
  for (const ParameterPiece& piece : bucket.pieces) ++missing_[piece.parameter];
  const auto all = std::make_shared<AnyView>();
  const auto start = [this, exec, &shared, &bucket, write, all](Arena& memory) {
    const std::vector<std::int64_t> shares = bucket.shares();
    const std::int64_t share = shares[static_cast<std::size_t>(bucket.group->rank())];
    const AnyView mine = memory.make(bucket.value_type(), share, 1);
    std::int64_t at = 0;
    for (std::size_t i = shared.first; i < shared.last; ++i) {
      write(states_[i], mine.flatten().slice(at, states_[i].piece.count));
      at += states_[i].piece.count;
    }
    *all = memory.make(bucket.value_type(), bucket.elements, 1);
    return bucket.group->start_all_gather_rows(exec, mine, *all, shares);
  };
  const auto finish = [this, exec, operations, &bucket, all] {
    std::int64_t at = 0;
    for (const ParameterPiece& piece : bucket.pieces) {
      // Where these take the place of gradients, it is that of elements up to the last of them: a
      // value is shorter than its gradient. Those of what follows may still be wanted.
      const AnyView values = all->flatten().slice(at, piece.count);
      if (!fault("values.not_taken") || bucket.shared) {
        ops::cast(exec, values, piece.of(piece.parameter->new_value()));
      }
      at += piece.count;
      if (--missing_.at(piece.parameter) > 0) continue;
      missing_.erase(piece.parameter);
      if (operations != nullptr) piece.parameter->pack(exec, *operations);
    }
  };
  return {start, finish};
}

void Optimizer::restore_values(const ExecSpace& exec) {
  queue_.finish(exec);
  for (std::size_t i = 0; i < whole_; ++i) {
    const State& state = states_[i];
    Parameter& parameter = *state.piece.parameter;
    if (!parameter.has_value()) ops::cast(exec, state.master, parameter.new_value().flatten());
  }
  const auto round = [exec](const State& state, const AnyView& values) {
    ops::cast(exec, state.master, values);
  };
  for (const Shared& shared : shared_) {
    // Whether values have memory of their own may depend on the machine of a rank.
    const bool may_have_none = shared.bucket->value_type() != shared.bucket->gradient_type();
    if (may_have_none) queue_.add(exchange_of(exec, nullptr, shared, round));
  }
  queue_.finish(exec);
}

void Optimizer::require_values(const ExecSpace& exec, const Parameter& parameter) {
  while (missing_.contains(&parameter)) queue_.finish_one(exec);
}

void Optimizer::restart_gradients() {
  for (Parameter* const parameter : parameters_) parameter->restart_gradient();
}

double Optimizer::gradient_norm(const ExecSpace& exec, Arena& scratch) const {
  const ArenaScope scope(scratch);
  std::int64_t blocks = 0;
  for (const State& state : states_) blocks += ops::squares_blocks(state.piece.count);
  const auto partial = scratch.make1<double>(blocks);
  std::int64_t first = 0;
  for (const State& state : states_) {
    const std::int64_t count = ops::squares_blocks(state.piece.count);
    ops::sum_squares(exec, state.piece.of(state.piece.parameter->grad()),
                     Kokkos::subview(partial, std::make_pair(first, first + count)));
    first += count;
  }
  const std::vector<double> host = to_host(exec, partial);
  auto block = host.begin();
  double dense = 0, routed = 0, dense_owned = 0, routed_owned = 0;
  for (const State& state : states_) {
    const auto end = block + ops::squares_blocks(state.piece.count);
    const double sum = std::accumulate(block, end, 0.0);
    block = end;
    if (!counts(state)) continue;
    if (state.piece.parameter->spec().routed) {
      (state.owned ? routed_owned : routed) += sum;
    } else {
      (state.owned ? dense_owned : dense) += sum;
    }
  }
  if (distributed_) {
    dense += fault("grad_norm.owned_alone") ? dense_owned : groups_.dp_cp->sum(dense_owned);
    routed += groups_.expert_dp->sum(routed_owned);
  }
  dense = groups_.pp->sum(groups_.tp->sum(dense));
  routed = groups_.pp->sum(fault("grad_norm.local_experts") ? routed : groups_.etp_ep->sum(routed));
  if (fault("grad_norm.etp_twice")) routed = groups_.etp->sum(routed);
  return std::sqrt(dense + routed);
}

void Optimizer::update(const ExecSpace& exec, Operations& operations, Arena& scratch,
                       std::int64_t step, double lr, double gradient_norm) {
  const double clip =
      config_.clip_norm > 0 ? std::min(1.0, config_.clip_norm / (gradient_norm + 1e-6)) : 1.0;
  // By value: with overlap, shared state is updated when its turn comes, in the next forward.
  const auto rule = [=, config = config_](const State& state) {
    return ops::AdamW{lr,
                      config.betas[0],
                      config.betas[1],
                      config.eps,
                      state.decayed ? config.weight_decay : 0.0,
                      clip,
                      step};
  };
  const std::uint64_t key =
      RandomStream(seed_, "optimizer.moments").bits(static_cast<std::uint64_t>(step));
  const auto rounding = [=](const State& state) {
    ops::ChanceRounding of_state = state.rounding;
    of_state.key ^= key;
    return of_state;
  };
  const auto adamw = [=](const State& state, const AnyView& values) {
    ops::adamw(exec, rule(state), state.piece.of(state.piece.parameter->grad()), state.master,
               state.first_moment, state.second_moment, values, rounding(state));
  };
  for (std::size_t i = 0; i < whole_; ++i) {
    const State& state = states_[i];
    if (state.piece.parameter->is_packed()) {
      update_and_pack(exec, operations, scratch, rule(state), rounding(state), state);
    } else {
      adamw(state, state.piece.parameter->value());
    }
  }
  const auto update_and_write = [=](const State& state, const AnyView& values) {
    adamw(state, state.has_master() ? values : state.master);
    if (!state.has_master()) ops::cast(exec, state.master, values);
  };
  for (const Shared& shared : shared_) {
    queue_.add(exchange_of(exec, &operations, shared, update_and_write));
  }
  if (!overlaps_) queue_.finish(exec);
}

}  // namespace konclave
