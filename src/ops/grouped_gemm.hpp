#pragma once

#include "ops/gemm.hpp"

#include <compare>
#include <string>
#include <string_view>

namespace konclave {

/// One product for each of L local experts in one call. Rows of expert e are
/// offsets(e) .. offsets(e+1)-1 of x and y; its weight is W[e] of W (L,Out,In). Any number of
/// rows each, none included: its dW is then zero (or unchanged when accumulating).
struct GroupedGemmShape {
  int experts = 0;
  GemmShape each;

  auto operator<=>(const GroupedGemmShape&) const = default;
};
std::string describe(const GroupedGemmShape& shape);

struct GroupedGemmOperands {
  View1<const int> offsets;                ///< (L+1), on the device, ascending
  AnyIn a;                                 ///< forward: x (R,In); both gradients: dy (R,Out)
  const PreparedWeight* weight = nullptr;  ///< forward and data_gradient: W (L,Out,In)
  AnyIn b;                                 ///< weight_gradient: x (R,In)
  AnyView c;                               ///< y (R,Out), dx (R,In) or dW (L,Out,In)
  AnyView workspace;
};

/// See GemmOffer.
struct GroupedGemmOffer {
  std::string_view backend;
  std::string (*refuses)(const GroupedGemmShape& shape);
  std::size_t (*workspace)(const GroupedGemmShape& shape, std::int64_t rows);
  void (*run)(const ExecSpace& exec, const GroupedGemmShape& shape,
              const GroupedGemmOperands& operands);
  std::string (*remark)(const GroupedGemmShape& shape) = nullptr;
  WeightPacking packing = {};  ///< of the matrix of each expert, one behind the other
};

}  // namespace konclave
