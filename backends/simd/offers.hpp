#pragma once

#include "ops/attention.hpp"
#include "ops/gemm.hpp"
#include "ops/grouped_gemm.hpp"

/// Products and attention of our own in the vectors of the host's CPU: bf16 and fp32, sums in fp32.
/// Weights are used as they are stored. What one product needs of an operand in another order is
/// brought into it on the way, a block at a time, so a weight that comes from memory anyway costs
/// no second copy, and an expert with few rows costs what its rows cost.
namespace konclave::simd {

GemmOffer gemm_offer();
GroupedGemmOffer grouped_gemm_offer();
AttentionOffer attention_offer();

}  // namespace konclave::simd
