#include "reference/gemm_loops.hpp"
#include "reference/offers.hpp"
#include "tensor/host_copy.hpp"

#include <string>
#include <vector>

namespace konclave::reference {

namespace {

void run(const ExecSpace& exec, const GemmShape& shape, const GemmOperands& operands) {
  const bool of_weight = shape.kind == GemmKind::weight_gradient;
  const AnyIn& second = of_weight ? operands.b : operands.weight->weight;
  dispatch_types(shape, [&](auto type, auto result) {
    using X = typename decltype(type)::type;
    using R = typename decltype(result)::type;
    const std::vector<X> a = to_host(exec, operands.a.flat<X>()),
                         b = to_host(exec, second.flat<X>());
    std::vector<R> c = to_host(exec, operands.c.flat<R>());
    GemmLoops<X, R>{shape}.run(operands.a.extent(0), a.data(), b.data(), c.data());
    to_device(exec, c, operands.c.flat<R>());
  });
}

}  // namespace

GemmOffer gemm_offer() {
  return {"reference", [](const GemmShape&) { return std::string(); },
          [](const GemmShape&, std::int64_t) { return std::size_t{0}; }, &run};
}

}  // namespace konclave::reference
