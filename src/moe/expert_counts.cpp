#include "moe/expert_counts.hpp"

#include "tensor/host_copy.hpp"

#include <cstddef>
#include <cstring>
#include <span>

namespace konclave {

std::vector<std::int64_t> expert_counts(const Context& context, const RoutingPlan& routing) {
  const std::vector<int> offsets = to_host(context.exec, routing.expert_offsets);
  std::vector<std::int64_t> counts;
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
    counts.push_back(offsets[e + 1] - offsets[e]);
  }
  return counts;
}

std::vector<std::int64_t> gather_counts(const Transport& group,
                                        const std::vector<std::int64_t>& mine) {
  const std::vector<std::byte> bytes = group.gather(std::as_bytes(std::span(mine)));
  std::vector<std::int64_t> all(bytes.size() / sizeof(std::int64_t));
  if (!bytes.empty()) std::memcpy(all.data(), bytes.data(), bytes.size());
  return all;
}

}  // namespace konclave
