#pragma once

#include "ops/attention.hpp"
#include "ops/gemm.hpp"
#include "ops/grouped_gemm.hpp"

/// Products and attention by oneDNN, for CPUs; bf16 and fp32. Threads are those of oneDNN's OpenMP.
namespace konclave::onednn {

GemmOffer gemm_offer();
GroupedGemmOffer grouped_gemm_offer();
AttentionOffer attention_offer();

}  // namespace konclave::onednn
