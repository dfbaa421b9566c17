#include "onednn/sgemm.hpp"

#include <dnnl.hpp>

namespace konclave::onednn {

void sgemm(const ExecSpace& exec, float alpha, const ops::Factor<float>& a,
           const ops::Factor<float>& b, float beta, const ops::Matrix<float>& c) {
  if (c.empty()) return;
  if (a.columns() == 0) {
    if (beta == 0) ops::set_zero(exec, c);
    return;
  }
  fence(exec, "konclave::onednn::sgemm");
  const dnnl::status status = dnnl::sgemm(
      a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', c.rows, c.columns, a.columns(), alpha,
      a.matrix.data, a.matrix.stride, b.matrix.data, b.matrix.stride, beta, c.data, c.stride);
  require(status == dnnl::status::success, "oneDNN's sgemm refuses its arguments");
}

}  // namespace konclave::onednn
