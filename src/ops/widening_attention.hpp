#pragma once

#include "ops/attention.hpp"

#include <cstdint>
#include <string>
#include <string_view>

namespace konclave::ops {

/// The offer of a backend on the host that has products in fp32, to which it widens bf16. `Passes`
/// has functions forward<X> and backward<X> for Bf16 and float.
template <typename Passes>
AttentionOffer widening_attention(std::string_view backend,
                                  std::size_t (*workspace)(const AttentionShape&, std::int64_t)) {
  return {
      .backend = backend,
      .refuses = [](const AttentionShape& shape) -> std::string {
        if (!kHostAccessible) return "needs host memory";
        return shape.type == DType::fp64 ? "has no products in fp64" : "";
      },
      .workspace = workspace,
      .forward =
          [](const ExecSpace& exec, const AttentionShape& shape, const AttentionForward& call) {
            if (shape.type == DType::bf16) {
              Passes::template forward<Bf16>(exec, shape, call);
            } else {
              Passes::template forward<float>(exec, shape, call);
            }
          },
      .backward =
          [](const ExecSpace& exec, const AttentionShape& shape, const AttentionBackward& call) {
            if (shape.type == DType::bf16) {
              Passes::template backward<Bf16>(exec, shape, call);
            } else {
              Passes::template backward<float>(exec, shape, call);
            }
          },
      .remark = [](const AttentionShape& shape) -> std::string {
        return shape.type == DType::bf16 ? "bf16 is widened to fp32, block by block" : "";
      }};
}

}  // namespace konclave::ops
