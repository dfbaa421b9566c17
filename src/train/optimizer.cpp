#include "train/optimizer.hpp"

#include "base/fault.hpp"
#include "ops/adamw.hpp"
#include "ops/elementwise.hpp"
#include "tensor/host_copy.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace konclave {

namespace {

/// Whether the norm takes a dense parameter's gradient from this rank.
bool counts(const Placement& placement, const Groups& groups) {
  if (placement.copy) return fault("grad_norm.tied_twice");
  return !placement.on_all_tp || groups.tp->rank() == 0 || fault("grad_norm.replicas");
}

}  // namespace

Optimizer::Optimizer(Transformer& model, const OptimizerConfig& config, const ExecSpace& exec,
                     Arena& arena)
    : config_(config) {
  model.visit_parameters([&](Parameter& parameter) {
    const DType type = accum_type(parameter.spec().type);
    const bool own_master = parameter.spec().type == type;
    const bool is_matrix = parameter.spec().shape.size() >= 2;
    states_.push_back({&parameter,
                       own_master ? parameter.value() : arena.make(type, parameter.size()),
                       arena.make(type, parameter.size()), arena.make(type, parameter.size()),
                       config_.decay == "all" || is_matrix});
  });
  reset(exec);
}

void Optimizer::reset(const ExecSpace& exec) {
  for (const State& state : states_) {
    if (state.master.data() != state.parameter->value().data()) {
      ops::cast(exec, state.parameter->value(), state.master);
    }
    ops::fill_zero(exec, state.first_moment);
    ops::fill_zero(exec, state.second_moment);
  }
}

void Optimizer::restart_gradients() {
  for (const State& state : states_) state.parameter->restart_gradient();
}

void Optimizer::finish_gradients(const ExecSpace& exec) {
  for (const State& state : states_) state.parameter->grad_to_add_to(exec);
}

double Optimizer::gradient_norm(const ExecSpace& exec, Arena& scratch, const Groups& groups) const {
  const ArenaScope scope(scratch);
  std::int64_t blocks = 0;
  for (const State& state : states_) blocks += ops::squares_blocks(state.parameter->size());
  const auto partial = scratch.make1<double>(blocks);
  std::int64_t first = 0;
  for (const State& state : states_) {
    const std::int64_t count = ops::squares_blocks(state.parameter->size());
    ops::sum_squares(exec, state.parameter->grad(),
                     Kokkos::subview(partial, std::make_pair(first, first + count)));
    first += count;
  }
  const std::vector<double> host = to_host(exec, partial);
  auto block = host.begin();
  double dense = 0, routed = 0;
  for (const State& state : states_) {
    const auto end = block + ops::squares_blocks(state.parameter->size());
    const double sum = std::accumulate(block, end, 0.0);
    block = end;
    if (state.parameter->spec().routed) {
      routed += sum;
    } else if (counts(state.parameter->placement(), groups)) {
      dense += sum;
    }
  }
  dense = groups.pp->sum(groups.tp->sum(dense));
  routed = groups.pp->sum(fault("grad_norm.local_experts") ? routed : groups.etp_ep->sum(routed));
  if (fault("grad_norm.etp_twice")) routed = groups.etp->sum(routed);
  return std::sqrt(dense + routed);
}

void Optimizer::update(const ExecSpace& exec, std::int64_t step, double lr, double gradient_norm) {
  const double clip =
      config_.clip_norm > 0 ? std::min(1.0, config_.clip_norm / (gradient_norm + 1e-6)) : 1.0;
  for (const State& state : states_) {
    const ops::AdamW rule{lr,
                          config_.betas[0],
                          config_.betas[1],
                          config_.eps,
                          state.decayed ? config_.weight_decay : 0.0,
                          clip,
                          step};
    ops::adamw(exec, rule, state.parameter->grad(), state.master, state.first_moment,
               state.second_moment, state.parameter->value());
  }
}

}  // namespace konclave
