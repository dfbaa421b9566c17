#include "kokkos_kernels/multiply.hpp"

#include <KokkosBlas3_gemm.hpp>

#include <utility>

namespace konclave::kokkos_kernels {

namespace {

/// A strided matrix as a view: the leading columns of one whose rows are `stride` long.
template <typename X> auto strided_view(const ops::Matrix<X>& matrix) {
  const View2<X> rows(matrix.data, matrix.rows, matrix.stride);
  return Kokkos::subview(rows, Kokkos::ALL, std::make_pair(std::int64_t{0}, matrix.columns));
}

/// Kokkos Kernels takes an execution space from release 4 on. Before, it uses the default one.
template <typename A, typename In, typename Out>
void call_library(const ExecSpace& exec, const char* op_a, const char* op_b, A alpha, const In& a,
                  const In& b, A beta, const Out& c) {
  if constexpr (requires { KokkosBlas::gemm(exec, op_a, op_b, alpha, a, b, beta, c); }) {
    KokkosBlas::gemm(exec, op_a, op_b, alpha, a, b, beta, c);
  } else {
    fence(exec, "konclave::kokkos_kernels::gemm");
    KokkosBlas::gemm(op_a, op_b, alpha, a, b, beta, c);
    fence(ExecSpace(), "konclave::kokkos_kernels::gemm");
  }
}

}  // namespace

template <typename A>
void gemm(const ExecSpace& exec, A alpha, const ops::Factor<A>& a, const ops::Factor<A>& b, A beta,
          const ops::Matrix<A>& c) {
  if (c.empty()) return;
  if (a.columns() == 0) {
    if (beta == 0) ops::set_zero(exec, c);
    return;
  }
  call_library(exec, a.transposed ? "T" : "N", b.transposed ? "T" : "N", alpha,
               strided_view(a.matrix), strided_view(b.matrix), beta, strided_view(c));
}

template void gemm(const ExecSpace&, float, const ops::Factor<float>&, const ops::Factor<float>&,
                   float, const ops::Matrix<float>&);
template void gemm(const ExecSpace&, double, const ops::Factor<double>&, const ops::Factor<double>&,
                   double, const ops::Matrix<double>&);

void multiply(const ExecSpace& exec, const ops::Product& product) {
  const auto typed = [&](auto tag) {
    using A = typename decltype(tag)::type;
    gemm<A>(exec, 1, {ops::matrix_of<A>(product.a), product.transpose_a},
            {ops::matrix_of<A>(product.b), product.transpose_b}, product.accumulate ? 1 : 0,
            ops::matrix_of<A>(product.c));
  };
  if (product.c.type() == DType::fp64) {
    typed(TypeTag<double>{});
  } else {
    typed(TypeTag<float>{});
  }
}

std::string refuses_types(DType type, DType result) {
  if (type == DType::bf16 || result == DType::bf16) return "has no products in bf16";
  if (type != result) return "gives results in the type of the operands only";
  return "";
}

}  // namespace konclave::kokkos_kernels
