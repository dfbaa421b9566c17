#pragma once

#include "model/config.hpp"

#include <cstdint>
#include <string>

namespace konclave {

/// What a machine can do at most, as measured while all ranks worked: docs/performance.md.
struct MachineLimits {
  double flops_per_second = 0;  ///< of the best dense product, all ranks together
  std::string product;          ///< which product that was
  double bytes_per_second = 0;  ///< read and written, all ranks together
};

/// Of a parameter that `holders` ranks hold, what a training step moves to update it once and
/// bring it to all of them.
struct ParameterBytes {
  std::int64_t optimizer =
      0;  ///< AdamW reads gradient, master weight and moments, and writes all but the gradient
  std::int64_t exchange = 0;  ///< gradients of the other holders read, values for them written
};
ParameterBytes parameter_bytes(std::int64_t elements, DType compute, int holders);

/// Seconds that this work takes at the limits.
double limit_seconds(const MachineLimits& limits, double flops, double bytes);

/// Bytes read and written by the router at least, whatever it is made of: everything that comes in
/// or goes out once. `type` is that of x (T,H).
struct RoutingSize {
  std::int64_t tokens = 0;
  int hidden = 0, experts = 0, top_k = 0;
  DType type = DType::fp32;
};
std::int64_t router_forward_bytes(const RoutingSize& size);
std::int64_t router_backward_bytes(const RoutingSize& size);
/// The same for the way of rows to their experts and back: each row is read and written once on the
/// way there and read once on the way back, where tokens are written; a value for each goes along.
std::int64_t dispatch_bytes(const RoutingSize& size);
/// Tables between assignments and rows, made of the experts of the assignments.
std::int64_t plan_bytes(const RoutingSize& size);

/// Operations of attention that the model needs, causal: half of the square.
double attention_forward_flops(std::int64_t sequences, std::int64_t length, int heads, int dk,
                               int dv);

/// Of one layer, forward and backward, for a token: training_flops_per_token without the head.
double layer_flops_per_token(const ModelDefinition& definition);

}  // namespace konclave
