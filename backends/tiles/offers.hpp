#pragma once

#include "ops/attention.hpp"
#include "ops/gemm.hpp"
#include "ops/grouped_gemm.hpp"

/// Products of bf16 on the tiles that some x86 CPUs have (AMX), for weights packed once.
namespace konclave::tiles {

GemmOffer gemm_offer();
GroupedGemmOffer grouped_gemm_offer();
AttentionOffer attention_offer();

}  // namespace konclave::tiles
