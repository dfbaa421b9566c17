#include "bench/limits.hpp"

#include "model/flops.hpp"
#include "ops/permute.hpp"
#include "ops/router.hpp"

namespace konclave {

ParameterBytes parameter_bytes(std::int64_t elements, DType compute, int holders) {
  const auto wide = static_cast<std::int64_t>(size_of(accum_type(compute)));
  const auto value = static_cast<std::int64_t>(size_of(compute));
  const bool has_master = accum_type(compute) != compute;
  // Gradient, master weight, two moments in; the last three out, and the values if they are others.
  const std::int64_t update = 7 * wide + (has_master ? value : 0);
  return {elements * update, elements * (holders - 1) * (wide + value)};
}

double limit_seconds(const MachineLimits& limits, double flops, double bytes) {
  return flops / limits.flops_per_second + bytes / limits.bytes_per_second;
}

namespace {

constexpr std::int64_t kInt = sizeof(int);

std::int64_t bytes_of(DType type) { return static_cast<std::int64_t>(size_of(type)); }

}  // namespace

std::int64_t router_forward_bytes(const RoutingSize& size) {
  const DType wide = accum_type(size.type);
  const std::int64_t in =
      size.tokens * size.hidden * bytes_of(size.type) + size.experts * size.hidden * bytes_of(wide);
  return in + ops::router_bytes(size.tokens, size.experts, size.top_k, wide) + plan_bytes(size);
}

std::int64_t router_backward_bytes(const RoutingSize& size) {
  const std::int64_t wide = bytes_of(accum_type(size.type));
  const std::int64_t rows = size.tokens * size.hidden * bytes_of(size.type);
  const std::int64_t weight = wide * size.experts * size.hidden;
  const std::int64_t scores = wide * size.tokens * (size.experts + 1);  // and log-sum-exp
  const std::int64_t assignments = size.tokens * size.top_k * (2 * wide + kInt);
  // x is read, dx added to; the weight is read, its gradient written.
  return 3 * rows + 2 * weight + scores + assignments;
}

std::int64_t dispatch_bytes(const RoutingSize& size) {
  const std::int64_t assignments = size.tokens * size.top_k;
  const std::int64_t values = 2 * assignments * bytes_of(accum_type(size.type));
  return ops::permute_bytes(assignments, size.hidden, size.type) + values +
         ops::combine_bytes(size.tokens, assignments, size.hidden, size.type);
}

std::int64_t plan_bytes(const RoutingSize& size) {
  return kInt * (4 * size.tokens * size.top_k + size.tokens + 1 + size.experts + 1);
}

double attention_forward_flops(std::int64_t sequences, std::int64_t length, int heads, int dk,
                               int dv) {
  const auto square = static_cast<double>(length) * static_cast<double>(length);
  return static_cast<double>(sequences) * square * heads * (dk + dv);
}

double layer_flops_per_token(const ModelDefinition& definition) {
  ModelDefinition one = definition;
  one.model.num_layers = 1;
  one.moe.layer_frequency.clear();
  const double head = 6.0 * one.model.hidden_size * one.model.vocab_size;
  return training_flops_per_token(one) - head;
}

}  // namespace konclave
