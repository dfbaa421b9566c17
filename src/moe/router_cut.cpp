#include "moe/router_cut.hpp"

#include "ops/rows.hpp"

#include <algorithm>

namespace konclave {

namespace {

constexpr std::int64_t kMultiple = 32, kFar = 1024;

std::int64_t bytes_of(DType type) { return static_cast<std::int64_t>(size_of(type)); }

std::int64_t parts(std::int64_t size, std::int64_t at_once) {
  return (size + at_once - 1) / at_once;
}

std::int64_t rounded_down(std::int64_t value) { return value / kMultiple * kMultiple; }

/// As many columns at a time as fit, the strips of equal width.
std::int64_t even(std::int64_t hidden, std::int64_t most) {
  return parts(parts(hidden, parts(hidden, most)), kMultiple) * kMultiple;
}

RouterCut whole_rows(const RouterProduct& product) {
  if (product.rows == product.type || !ops::kHostExecution) {
    return {std::max<std::int64_t>(1, product.tokens), product.hidden};
  }
  if (product.weight_bytes() > ops::kNearBytes) return {kFar, product.hidden};
  const std::int64_t fit = ops::kNearBytes / 2 / (product.hidden * bytes_of(product.type));
  return {std::clamp<std::int64_t>(rounded_down(fit), kMultiple, kFar), product.hidden};
}

/// Whether strips may be less than whole rows.
bool is_far(const RouterProduct& product) {
  return product.rows != product.type && ops::kHostExecution && product.tokens > 0 &&
         product.weight_bytes() > ops::kNearBytes;
}

/// The better of whole rows and strips, if these have a size.
template <typename Bytes>
RouterCut best(const RouterProduct& product, const RouterCut& strips, const Bytes& bytes) {
  const RouterCut whole = whole_rows(product);
  const bool possible =
      is_far(product) && strips.rows > 0 && strips.columns > 0 && strips.columns < product.hidden;
  return possible && bytes(product, strips) < bytes(product, whole) ? strips : whole;
}

/// What is widened is written and read again, unless it stays near.
std::int64_t copy_bytes(const RouterProduct& product, const RouterCut& cut) {
  const std::int64_t wide = bytes_of(product.type);
  const bool is_near = cut.rows * cut.columns * wide <= ops::kNearBytes;
  return product.rows == product.type || is_near ? 0 : 2 * product.tokens * product.hidden * wide;
}

/// How often the weight comes from afar.
std::int64_t times_met(const RouterProduct& product, const RouterCut& cut) {
  if (product.weight_bytes() <= ops::kNearBytes || product.tokens == 0) return 1;
  return parts(product.tokens, cut.rows);
}

std::int64_t row_bytes(const RouterProduct& product) {
  return product.tokens * product.hidden * bytes_of(product.rows);
}

}  // namespace

std::int64_t RouterProduct::logit_bytes() const { return tokens * experts * bytes_of(type); }
std::int64_t RouterProduct::weight_bytes() const { return experts * hidden * bytes_of(type); }

RouterCut forward_cut(const RouterProduct& product) {
  constexpr std::int64_t kColumns = 128;
  const std::int64_t wide = bytes_of(product.type);
  // Logits and the strip of each row beside the weight's strip.
  const std::int64_t left = ops::kNearBytes - product.experts * kColumns * wide;
  const std::int64_t rows = rounded_down(left / ((product.experts + kColumns) * wide));
  return best(product, {rows, kColumns}, forward_bytes);
}

RouterCut backward_cut(const RouterProduct& product) {
  constexpr std::int64_t kRows = 64;
  const std::int64_t wide = bytes_of(product.type);
  // Strips of the weight, its gradient, the rows and what is added to dx, beside the logits.
  const std::int64_t left = ops::kNearBytes - kRows * product.experts * wide;
  const std::int64_t most = rounded_down(left / (2 * (product.experts + kRows) * wide));
  return best(product, {kRows, most < kMultiple ? 0 : even(product.hidden, most)}, backward_bytes);
}

std::int64_t forward_bytes(const RouterProduct& product, const RouterCut& cut) {
  // The strips of the weight are copies of it.
  const std::int64_t strips = cut.columns < product.hidden ? 2 * product.weight_bytes() : 0;
  return row_bytes(product) + copy_bytes(product, cut) +
         times_met(product, cut) * product.weight_bytes() + strips + product.logit_bytes();
}

std::int64_t backward_bytes(const RouterProduct& product, const RouterCut& cut) {
  const std::int64_t weight = product.weight_bytes(), rows = 3 * row_bytes(product);
  if (cut.columns < product.hidden) {
    // Copied, read and its gradient written, once each; each strip reads all dl.
    return rows + 4 * weight + parts(product.hidden, cut.columns) * product.logit_bytes();
  }
  // The product that is added to dx is a copy, too. A gradient that is added to is read as well.
  const std::int64_t met = times_met(product, cut);
  return rows + 2 * copy_bytes(product, cut) + met * weight + (2 * met - 1) * weight +
         2 * product.logit_bytes();
}

}  // namespace konclave
