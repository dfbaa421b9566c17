#include "onednn/offers.hpp"
#include "ops/op_table.hpp"

#include <omp.h>

namespace konclave::onednn {

void offer(OpTable& table) {
  // As many threads as Kokkos has, whatever the machine offers: the usual rank has one core, and
  // waiting threads of several ranks would stand in each other's way. It also fixes the bits of a
  // result, which depend on how a product is cut.
  omp_set_num_threads(ExecSpace().concurrency());
  table.gemm.push_back(gemm_offer());
  table.grouped_gemm.push_back(grouped_gemm_offer());
  table.attention.push_back(attention_offer());
}

}  // namespace konclave::onednn
