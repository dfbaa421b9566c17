#pragma once

#include "base/dtype.hpp"

#include <cstdint>

namespace konclave {

/// The products of a router: rows x (T,H), a weight (E,H), logits (T,E).
struct RouterProduct {
  std::int64_t tokens = 0, hidden = 0, experts = 0;
  DType rows = DType::fp32, type = DType::fp32;  ///< of x, and of the router

  std::int64_t logit_bytes() const;   ///< of all logits
  std::int64_t weight_bytes() const;  ///< in the router's type
};

/// How a product is cut into pieces that stay near (ops::kNearBytes) while rows of a narrower type
/// are widened: so many rows and so many of the columns of x at a time.
///
/// Whole rows where the weight is near. Else forward takes strips of few columns, so that the
/// logits of many rows stay where the strips' products are added up and the weight passes but once
/// for all of these rows. Backward takes all rows for each of few broad strips, whose weight and
/// gradient stay. Where a strip of a large weight would be too narrow, whole rows again, many at a
/// time; what is least is taken. The same for every number of threads.
struct RouterCut {
  std::int64_t rows = 1, columns = 1;
};
RouterCut forward_cut(const RouterProduct& product);
RouterCut backward_cut(const RouterProduct& product);

/// Bytes that the products move, cut like this: forward l is written, backward dl read.
std::int64_t forward_bytes(const RouterProduct& product, const RouterCut& cut);
std::int64_t backward_bytes(const RouterProduct& product, const RouterCut& cut);

}  // namespace konclave
