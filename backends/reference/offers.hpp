#pragma once

#include "ops/attention.hpp"
#include "ops/gemm.hpp"
#include "ops/grouped_gemm.hpp"

/// Every replaceable operation as plain loops on the host: slow, obvious, and the judge of the
/// other backends. Refuses nothing; views of a device are mirrored.
namespace konclave::reference {

GemmOffer gemm_offer();
GroupedGemmOffer grouped_gemm_offer();
AttentionOffer attention_offer();

}  // namespace konclave::reference
