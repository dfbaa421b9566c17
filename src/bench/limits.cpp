#include "bench/limits.hpp"

#include "model/flops.hpp"
#include "moe/router_cut.hpp"
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

RouterProduct product_of(const RoutingSize& size) {
  return {size.tokens, size.hidden, size.experts, size.type, size.router_type};
}

}  // namespace

RoutingBytes router_forward_bytes(const RoutingSize& size) {
  const std::int64_t wide = bytes_of(size.router_type), assignments = size.tokens * size.top_k;
  const std::int64_t in = size.tokens * size.hidden * bytes_of(size.type) +
                          std::int64_t{size.experts} * size.hidden * wide;
  // Scores and log-sum-exp for backward; experts, weights and the plan.
  const std::int64_t out = size.tokens * (size.experts + 1) * wide + assignments * (wide + kInt);
  const RoutingBytes plan = plan_bytes(size);
  const RouterProduct product = product_of(size);
  return {in + out + plan.least,
          forward_bytes(product, forward_cut(product)) +
              ops::router_bytes(size.tokens, size.experts, size.top_k, size.router_type) +
              (size.tokens + 1) * kInt + plan.moved};
}

RoutingBytes router_backward_bytes(const RoutingSize& size) {
  const std::int64_t wide = bytes_of(size.router_type);
  const std::int64_t rows = size.tokens * size.hidden * bytes_of(size.type);
  const std::int64_t weight = wide * size.experts * size.hidden;
  const std::int64_t scores = wide * size.tokens * (size.experts + 1);  // and log-sum-exp
  const std::int64_t assignments = size.tokens * size.top_k * (2 * wide + kInt);
  const RouterProduct product = product_of(size);
  // x is read, dx added to; the weight is read, its gradient written. The gradient of the logits is
  // written before.
  return {3 * rows + 2 * weight + scores + assignments,
          backward_bytes(product, backward_cut(product)) + product.logit_bytes() + scores +
              assignments};
}

RoutingBytes plan_bytes(const RoutingSize& size) {
  const std::int64_t assignments = size.tokens * size.top_k;
  return {kInt * (2 * assignments + size.tokens + 1 + size.experts + 1),
          ops::permutation_bytes(size.tokens, assignments, size.experts)};
}

RoutingBytes dispatch_bytes(const RoutingSize& size) {
  const std::int64_t assignments = size.tokens * size.top_k;
  const std::int64_t wide = bytes_of(accum_type(size.type));
  const std::int64_t row = size.hidden * bytes_of(size.type);
  const std::int64_t indices = kInt * (assignments + size.tokens + 1);
  const std::int64_t one_way = (assignments + size.tokens) * row + indices;
  const auto pass = [&](bool values) {
    return ops::permute_bytes(size.tokens, assignments, size.hidden, size.type,
                              {values, size.is_shifted});
  };
  // Read and written there, with values, and on the way back.
  const std::int64_t copies = size.copied_rows * (2 * 2 * row + 2 * wide);
  return {2 * one_way + 2 * assignments * wide, pass(true) + pass(false) + copies};
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
