#include "tiles/attention_work.hpp"
#include "tiles/cpu_kernels.hpp"
#include "tiles/offers.hpp"

#include <algorithm>

namespace konclave::tiles {

std::size_t attention_workspace(const AttentionShape& shape, std::int64_t longest) {
  const std::int64_t each = std::max(forward_size(shape, longest), backward_size(shape, longest));
  return static_cast<std::size_t>(each * ops::workers(ExecSpace())) * sizeof(float);
}

namespace {

std::string refuses(const AttentionShape& shape) {
  if (!kHostAccessible) return "needs host memory";
  if (shape.type != DType::bf16) return "multiplies bf16 only";
  return why_no_kernels();
}

AttentionParts parts() { return {*cpu_kernels().front().kernels, attention_kernels()}; }

void forward(const ExecSpace& exec, const AttentionShape& shape, const AttentionForward& call) {
  attention_forward(exec, parts(), shape, call);
}

void backward(const ExecSpace& exec, const AttentionShape& shape, const AttentionBackward& call) {
  attention_backward(exec, parts(), shape, call);
}

}  // namespace

AttentionOffer attention_offer() {
  return {"tiles", &refuses, &attention_workspace, &forward, &backward, [](const AttentionShape&) {
            return std::string(cpu_kernels().front().remark);
          }};
}

}  // namespace konclave::tiles
