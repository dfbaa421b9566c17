#pragma once

#include "ops/matrix.hpp"
#include "ops/product.hpp"

#include <string>

namespace konclave::kokkos_kernels {

/// c = alpha a b + beta c by KokkosBlas::gemm; see ops::MatrixProduct. For float and double.
template <typename A>
void gemm(const ExecSpace& exec, A alpha, const ops::Factor<A>& a, const ops::Factor<A>& b, A beta,
          const ops::Matrix<A>& c);

/// One product of a linear layer, in the type of its operands.
void multiply(const ExecSpace& exec, const ops::Product& product);

/// "", or why products of operands and results of these types are refused.
std::string refuses_types(DType type, DType result);

}  // namespace konclave::kokkos_kernels
