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

/// Tokens on their way to experts. `type` is that of x (T,H), `router_type` that of the logits.
struct RoutingSize {
  std::int64_t tokens = 0;
  int hidden = 0, experts = 0, top_k = 0;
  DType type = DType::fp32, router_type = DType::fp32;
  /// Rows go to several ranks, so that those of an expert are moved to their places together.
  bool is_shifted = false;
  /// Rows that a rank sends to itself by way of buffers: those of its own experts when there are
  /// several rounds.
  std::int64_t copied_rows = 0;
};

/// Bytes read and written by a part of an MoE layer, of one rank. What one pass leaves in a near
/// cache for the next (ops::kNearBytes) is no movement.
struct RoutingBytes {
  std::int64_t least = 0;  ///< whatever it is made of: what comes in or goes out, once each
  std::int64_t moved = 0;  ///< by the passes that it is made of, as these say themselves
};
RoutingBytes router_forward_bytes(const RoutingSize& size);
RoutingBytes router_backward_bytes(const RoutingSize& size);
/// The table from assignments to rows, made of the experts of the assignments.
RoutingBytes plan_bytes(const RoutingSize& size);
/// Rows to their experts and back: a token is read once, each of its rows written, and all of these
/// are read on the way back, where tokens are written; a value for each goes one way. The exchange
/// between ranks is not counted.
RoutingBytes dispatch_bytes(const RoutingSize& size);

/// Operations of attention that the model needs, causal: half of the square.
double attention_forward_flops(std::int64_t sequences, std::int64_t length, int heads, int dk,
                               int dv);

/// Of one layer, forward and backward, for a token: training_flops_per_token without the head.
double layer_flops_per_token(const ModelDefinition& definition);

}  // namespace konclave
