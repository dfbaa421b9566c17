#include "moe/routing_memory.hpp"

#include "ops/elementwise.hpp"
#include "tensor/host_copy.hpp"

#include <numeric>

namespace konclave {

RoutingMemory::RoutingMemory(const ExecSpace& exec, Arena& arena, int layers,
                             const MoeConfig& config)
    : experts_(config.num_experts),
      rate_(config.expert_bias ? config.expert_bias_update_rate : 0),
      keeps_load_(config.goes_by_previous_load()),
      bias_(arena.make(DType::fp32, layers, experts_)),
      load_(arena.make(DType::fp64, layers, experts_)) {
  ops::fill_zero(exec, bias_);
  const auto size = static_cast<std::size_t>(load_.size());
  from_doubles(exec, std::vector<double>(size, static_cast<double>(config.top_k) / experts_),
               load_);
}

void RoutingMemory::update(const ExecSpace& exec, const std::vector<double>& chosen,
                           const std::vector<double>& counted, double tokens) {
  const auto experts = static_cast<std::size_t>(experts_);
  if (rate_ > 0) {
    std::vector<double> bias = to_doubles(exec, bias_);
    for (std::size_t row = 0; row < bias.size(); row += experts) {
      const auto begin = chosen.begin() + static_cast<std::ptrdiff_t>(row);
      const double mean = std::accumulate(begin, begin + experts_, 0.0) / experts_;
      for (std::size_t i = row; i < row + experts; ++i) {
        // In fp32, as it is kept.
        const auto step = static_cast<float>(rate_ * ((mean > chosen[i]) - (mean < chosen[i])));
        bias[i] = static_cast<double>(static_cast<float>(bias[i]) + step);
      }
    }
    from_doubles(exec, bias, bias_);
  }
  std::vector<double> load = counted;
  for (double& count : load) count /= tokens;
  from_doubles(exec, load, load_);
}

}  // namespace konclave
