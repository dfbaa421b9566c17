#include "layers/attention_core.hpp"

#include "layers/attention_cores.hpp"

namespace konclave {

std::unique_ptr<const AttentionCore> make_attention_core(const AttentionShape& shape,
                                                         const Groups& groups) {
  if (groups.cp->size() == 1) return make_local_attention(shape);
  if (groups.parallel.cp_comm == "ring") return make_ring_attention(shape, groups.cp);
  if (groups.parallel.cp_comm == "all_gather") return make_gathered_attention(shape, groups.cp);
  require(groups.parallel.cp_comm == "a2a",
          "no way of context parallelism: " + groups.parallel.cp_comm);
  return make_head_exchange_attention(shape, groups.cp);
}

}  // namespace konclave
