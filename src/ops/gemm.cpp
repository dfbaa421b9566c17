#include "ops/gemm.hpp"

#include "ops/attention.hpp"
#include "ops/grouped_gemm.hpp"

namespace konclave {

std::string_view name_of(GemmKind kind) {
  switch (kind) {
    case GemmKind::forward:
      return "forward";
    case GemmKind::data_gradient:
      return "data gradient";
    case GemmKind::weight_gradient:
      return "weight gradient";
  }
  fail("unknown kind of product");
}

std::string describe(const GemmShape& shape) {
  return std::string(name_of(shape.kind)) + " (" + std::to_string(shape.out) + ", " +
         std::to_string(shape.in) + ") " + std::string(name_of(shape.type)) +
         (shape.result == shape.type ? "" : " to " + std::string(name_of(shape.result))) +
         (shape.accumulate ? ", added" : "");
}

PreparedWeight PreparedWeight::matrix(std::int64_t index) const {
  const AnyIn one = weight.slice(index, 1).reshape(weight.extent(1), weight.extent(2));
  return {one, packed.empty() ? packed : packed.slice(index, 1), layout};
}

PreparedWeight PreparedWeight::rows(std::int64_t first, std::int64_t count) const {
  require(weight.rank() == 2 && (first_row + first) % kRows == 0,
          "rows of a prepared weight begin at multiples of " + std::to_string(kRows));
  return {weight.slice(first, count), packed, layout, first_row + first};
}

std::string describe(const GroupedGemmShape& shape) {
  return std::to_string(shape.experts) + " x " + describe(shape.each);
}

std::string describe(const AttentionShape& shape) {
  return std::to_string(shape.heads) + " heads, " + std::to_string(shape.kv_heads) +
         " of keys, sizes " + std::to_string(shape.dk) + "/" + std::to_string(shape.dv) + " " +
         std::string(name_of(shape.type));
}

}  // namespace konclave
