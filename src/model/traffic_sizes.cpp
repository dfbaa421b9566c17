#include "model/traffic_sizes.hpp"

#include "base/error.hpp"
#include "moe/capacity.hpp"

#include <algorithm>

namespace konclave {

TrafficSizes::TrafficSizes(const StepShape& step)
    : tp{"tp", step.parallel.tp},
      cp{"cp", step.parallel.cp},
      dp{"dp", step.ranks / (tp.size * cp.size * step.parallel.pp)},
      pp{"pp", step.parallel.pp},
      tp_cp{"tp_cp", tp.size * cp.size},
      dp_cp{"dp_cp", dp.size * cp.size},
      tp_dp_cp{"tp_dp_cp", tp.size * dp.size * cp.size},
      etp{"etp", step.parallel.etp},
      ep{"ep", step.parallel.ep},
      etp_ep{"etp_ep", etp.size * ep.size},
      edp{"edp", step.ranks / (etp.size * ep.size * pp.size)},
      element(static_cast<std::int64_t>(size_of(step.definition.compute))),
      wide(static_cast<std::int64_t>(size_of(accum_type(step.definition.compute)))),
      wire(step.parallel.grad_wire == "bf16" ? 2 : wide),
      micro_batches(step.global_size / (step.micro_size * dp.size)),
      inside(step.micro_size * std::int64_t{step.definition.model.sequence_length} / cp.size),
      outside(shares_rows(step) ? inside / tp.size : inside) {
  require(step.ranks == tp_dp_cp.size * pp.size && step.ranks == etp_ep.size * edp.size * pp.size,
          "expected_traffic: the sizes of the groups don't make up the ranks");
}

std::pair<TrafficWindow, TrafficWindow> rows_of_window(const StepShape& step) {
  const MoeConfig& moe = step.definition.moe;
  const std::int64_t length = step.definition.model.sequence_length;
  const std::int64_t tokens = (moe.window == 0 ? step.micro_size : moe.window) * length;
  const std::int64_t all = tokens * moe.top_k;
  if (moe.capacity_factor == 0) return {{tokens, all}, {tokens, all}};
  const std::int64_t capacity = expert_capacity(moe, tokens);
  if (moe.pad_to_capacity) {
    const TrafficWindow padded{tokens, capacity * moe.num_experts};
    return {padded, padded};
  }
  return {{tokens, std::min(all, capacity * moe.top_k)},
          {tokens, std::min(all, capacity * moe.num_experts)}};
}

std::pair<std::int64_t, std::int64_t> rows_of_busiest(const StepShape& step) {
  const TrafficSizes of(step);
  const MoeConfig& moe = step.definition.moe;
  const std::int64_t tokens = of.etp_ep.size * of.outside, experts = moe.num_experts / of.ep.size;
  const auto [fewest, most] = rows_of_window(step);
  const std::int64_t all = tokens * fewest.assignments / fewest.tokens;
  std::int64_t bound = tokens * std::min<std::int64_t>(moe.top_k, experts);
  if (moe.capacity_factor > 0) {
    // A part of the ranks that share a window may have all that its experts take of it.
    const std::int64_t windows = std::max<std::int64_t>(1, of.inside * of.cp.size / most.tokens) *
                                 std::min(of.etp_ep.size, of.dp.size);
    const std::int64_t full = windows * expert_capacity(moe, most.tokens) * experts;
    bound = std::min(moe.pad_to_capacity ? tokens * experts : bound, full);
  }
  return {(all + of.ep.size - 1) / of.ep.size, bound};
}

}  // namespace konclave
