#pragma once

#include "ops/router.hpp"
#include "tests/unit/kernels/kernel_test.hpp"

#include <cmath>

namespace konclave {

/// Tokens, experts and choices per token: none, one expert, all experts, one past 32 and 64.
struct RoutingCase {
  int tokens, experts, top_k;
};
inline constexpr RoutingCase kRoutingCases[] = {{0, 3, 2},    {1, 1, 1},    {5, 3, 3},
                                                {7, 4, 1},    {33, 8, 2},   {65, 64, 6},
                                                {13, 67, 67}, {129, 128, 8}};

class RoutingTest : public KernelTest {
 protected:
  /// f(type, case, pre_softmax) for everything there is.
  template <typename F> void for_each_routing(F&& f) {
    for (const DType type : kAccumTypes) {
      for (const RoutingCase& each : kRoutingCases) {
        for (const bool pre_softmax : {false, true}) {
          SCOPED_TRACE(testing::Message()
                       << name_of(type) << ", T = " << each.tokens << ", E = " << each.experts
                       << ", K = " << each.top_k << (pre_softmax ? ", pre" : ", post"));
          tensors_ = Tensors(exec_);
          f(type, each, pre_softmax);
        }
      }
    }
  }

  View2<int> integers2(std::int64_t rows, std::int64_t columns) {
    return View2<int>(integers(rows * columns).data(), static_cast<std::size_t>(rows),
                      static_cast<std::size_t>(columns));
  }
  std::vector<int> flat(const View2<int>& view) const {
    return to_host(exec_, View1<int>(view.data(), view.extent(0) * view.extent(1)));
  }
  ops::Routed make_routed(DType type, const RoutingCase& each) {
    return {tensors_.poisoned(type, each.tokens, each.experts),
            tensors_.poisoned(type, each.tokens), integers2(each.tokens, each.top_k),
            tensors_.poisoned(type, each.tokens, each.top_k)};
  }
  ops::Routed route(const AnyView& logits, int top_k, bool pre_softmax) {
    const auto tokens = static_cast<int>(logits.extent(0));
    const auto experts = static_cast<int>(logits.extent(1));
    const ops::Routed routed = make_routed(logits.type(), {tokens, experts, top_k});
    ops::route(exec_, logits, pre_softmax, routed);
    return routed;
  }
  /// Windows of unequal length over T tokens, an empty one among them.
  static std::vector<int> window_offsets(int tokens) { return {0, tokens / 3, tokens / 3, tokens}; }
};

}  // namespace konclave
