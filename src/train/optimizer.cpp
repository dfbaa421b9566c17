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

/// Elements of a strip for each thread, whose new values stay in its second cache; and how many
/// threads count: a device has more than strips can use.
constexpr std::int64_t kStripElements = std::int64_t{1} << 16;
constexpr std::int64_t kMostThreads = 256;

/// Rows of a strip: as many for each thread, and as `pack` wants them.
std::int64_t rows_of_strip(const ExecSpace& exec, const GemmShape& shape) {
  constexpr std::int64_t kRows = WeightPacking::kRows;
  const std::int64_t threads = std::clamp<std::int64_t>(exec.concurrency(), 1, kMostThreads);
  const std::int64_t each = std::max(kRows, kStripElements / shape.in / kRows * kRows);
  return std::min<std::int64_t>(each * threads, shape.out);
}

/// An update by strips of rows, whose new values are still in a cache when they are packed.
void update_and_pack(const ExecSpace& exec, Operations& operations, Arena& scratch,
                     const ops::AdamW& rule, const Optimizer::State& state) {
  const ArenaScope scope(scratch);
  const Parameter& parameter = *state.parameter;
  const GemmShape shape = parameter.gemm_shape(GemmKind::forward);
  const std::int64_t rows = parameter.size() / shape.in, most = rows_of_strip(exec, shape);
  const bool kept = parameter.keeps_values();
  const AnyView room = kept ? AnyView() : scratch.make(shape.type, most, shape.in);
  for (std::int64_t matrix = 0; matrix < rows / shape.out; ++matrix) {
    for (std::int64_t first = 0; first < shape.out; first += most) {
      const std::int64_t count = std::min(most, shape.out - first);
      const auto strip = [&](const AnyView& view) {
        return view.reshape(rows, shape.in).slice(matrix * shape.out + first, count);
      };
      const AnyView values = kept ? strip(parameter.value()) : room.slice(0, count);
      ops::adamw(exec, rule, strip(parameter.grad()), strip(state.master),
                 strip(state.first_moment), strip(state.second_moment), values);
      parameter.pack(exec, operations, matrix, values, first);
    }
  }
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
    if (state.has_master()) ops::cast(exec, state.parameter->value(), state.master);
    ops::fill_zero(exec, state.first_moment);
    ops::fill_zero(exec, state.second_moment);
  }
}

void Optimizer::restore_values(const ExecSpace& exec) const {
  for (const State& state : states_) {
    if (!state.parameter->has_value()) ops::cast(exec, state.master, state.parameter->new_value());
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

void Optimizer::update(const ExecSpace& exec, Operations& operations, Arena& scratch,
                       std::int64_t step, double lr, double gradient_norm) {
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
    if (state.parameter->is_packed()) {
      update_and_pack(exec, operations, scratch, rule, state);
    } else {
      ops::adamw(exec, rule, state.parameter->grad(), state.master, state.first_moment,
                 state.second_moment, state.parameter->value());
    }
  }
}

}  // namespace konclave
