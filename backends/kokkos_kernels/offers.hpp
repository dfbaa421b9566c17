#pragma once

#include "ops/attention.hpp"
#include "ops/gemm.hpp"
#include "ops/grouped_gemm.hpp"

/// Products and attention by Kokkos Kernels, on whatever space Kokkos was built for; fp32 and fp64.
namespace konclave::kokkos_kernels {

GemmOffer gemm_offer();
GroupedGemmOffer grouped_gemm_offer();
AttentionOffer attention_offer();

}  // namespace konclave::kokkos_kernels
