#pragma once

#include "ops/matrix.hpp"

namespace konclave::onednn {

/// c = alpha a b + beta c in fp32; see ops::MatrixProduct. Needs no primitive, so no extent costs
/// more than another at its first use. Waits for `exec`, and is done when it returns.
void sgemm(const ExecSpace& exec, float alpha, const ops::Factor<float>& a,
           const ops::Factor<float>& b, float beta, const ops::Matrix<float>& c);

}  // namespace konclave::onednn
