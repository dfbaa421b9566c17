#include "ops/op_table.hpp"
#include "simd/offers.hpp"

namespace konclave::simd {

void offer(OpTable& table) {
  table.gemm.push_back(gemm_offer());
  table.grouped_gemm.push_back(grouped_gemm_offer());
  table.attention.push_back(attention_offer());
}

}  // namespace konclave::simd
