#include "reference/gemm_loops.hpp"
#include "reference/offers.hpp"
#include "tensor/host_copy.hpp"

#include <string>
#include <vector>

namespace konclave::reference {

namespace {

void run(const ExecSpace& exec, const GroupedGemmShape& shape,
         const GroupedGemmOperands& operands) {
  const bool of_weight = shape.each.kind == GemmKind::weight_gradient;
  const bool forward = shape.each.kind == GemmKind::forward;
  const std::int64_t a_width = forward ? shape.each.in : shape.each.out;
  const std::int64_t c_width = forward ? shape.each.out : shape.each.in;
  const std::int64_t weight_size = std::int64_t{shape.each.out} * shape.each.in;
  const AnyIn& second = of_weight ? operands.b : operands.weight->weight;
  const std::vector<int> offsets = to_host(exec, operands.offsets);
  dispatch_types(shape.each, [&](auto type, auto result) {
    using X = typename decltype(type)::type;
    using R = typename decltype(result)::type;
    const std::vector<X> a = to_host(exec, operands.a.flat<X>()),
                         b = to_host(exec, second.flat<X>());
    std::vector<R> c = to_host(exec, operands.c.flat<R>());
    for (int e = 0; e < shape.experts; ++e) {
      const std::int64_t first = offsets[e], rows = offsets[e + 1] - offsets[e];
      const X* b_of_expert = b.data() + (of_weight ? first * shape.each.in : e * weight_size);
      R* c_of_expert = c.data() + (of_weight ? e * weight_size : first * c_width);
      GemmLoops<X, R>{shape.each}.run(rows, a.data() + first * a_width, b_of_expert, c_of_expert);
    }
    to_device(exec, c, operands.c.flat<R>());
  });
}

}  // namespace

GroupedGemmOffer grouped_gemm_offer() {
  return {"reference", [](const GroupedGemmShape&) { return std::string(); },
          [](const GroupedGemmShape&, std::int64_t) { return std::size_t{0}; }, &run};
}

}  // namespace konclave::reference
