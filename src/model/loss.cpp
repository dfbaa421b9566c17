#include "model/loss.hpp"

#include "ops/cross_entropy.hpp"

#include <algorithm>

namespace konclave {

namespace {

/// Logits held at a time: large enough for efficient products, small beside the activations.
constexpr std::int64_t kBlockElements = std::int64_t{1} << 22;

void run_head(const Context& context, const LossHead& head) {
  const std::int64_t tokens = head.hidden.extent(0), vocabulary = head.weight->spec().shape[0];
  const DType type = head.hidden.type();
  const std::int64_t block = std::clamp<std::int64_t>(kBlockElements / vocabulary, 16, 1024);
  const bool gradients = !head.d_hidden.empty();
  for (std::int64_t first = 0; first < tokens; first += block) {
    const ArenaScope scope(context.scratch);
    const std::int64_t rows = std::min(block, tokens - first);
    const auto range = std::make_pair(first, first + rows);
    const View1<const int> labels = Kokkos::subview(head.labels, range);
    const View1<double> losses = Kokkos::subview(head.losses, range);
    const AnyIn hidden = head.hidden.slice(first, rows);
    const AnyView logits = context.scratch.make(accum_type(type), rows, vocabulary);
    head_logits(context, *head.weight, hidden, logits);
    if (!gradients) {
      ops::cross_entropy(context.exec, logits, labels, losses);
      continue;
    }
    const AnyView d_logits =
        type == logits.type() ? logits : context.scratch.make(type, rows, vocabulary);
    ops::cross_entropy_gradient(context.exec, logits, labels, head.scale, losses, d_logits);
    context.operations.gemm(context.exec, head.weight->gemm_shape(GemmKind::weight_gradient),
                            {d_logits, nullptr, hidden, head.weight->grad(), {}});
    context.operations.gemm(context.exec, head.weight->gemm_shape(GemmKind::data_gradient),
                            {d_logits,
                             &head.weight->prepared(GemmKind::data_gradient),
                             {},
                             head.d_hidden.slice(first, rows),
                             {}});
  }
}

}  // namespace

void loss_heads(const Context& context, std::span<const LossHead> heads) {
  for (const LossHead& head : heads) run_head(context, head);
}

void head_logits(const Context& context, const Parameter& weight, const AnyIn& hidden,
                 const AnyView& logits) {
  GemmShape shape = weight.gemm_shape(GemmKind::forward);
  shape.result = logits.type();
  context.operations.gemm(context.exec, shape,
                          {hidden, &weight.prepared(GemmKind::forward), {}, logits, {}});
}

}  // namespace konclave
