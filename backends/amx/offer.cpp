#include "amx/offers.hpp"
#include "ops/op_table.hpp"

namespace konclave::amx {

void offer(OpTable& table) {
  table.gemm.push_back(gemm_offer());
  table.grouped_gemm.push_back(grouped_gemm_offer());
}

}  // namespace konclave::amx
