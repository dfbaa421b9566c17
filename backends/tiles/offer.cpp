#include "ops/op_table.hpp"
#include "tiles/offers.hpp"

namespace konclave::tiles {

void offer(OpTable& table) {
  table.gemm.push_back(gemm_offer());
  table.grouped_gemm.push_back(grouped_gemm_offer());
  table.attention.push_back(attention_offer());
}

}  // namespace konclave::tiles
