#pragma once

#include "tensor/view.hpp"

#include <cstdint>
#include <optional>
#include <vector>

namespace konclave {

/// Arrays of floating-point values in host memory, as files hold them: little endian, at any
/// address. Source and target of a conversion do not overlap.

/// Converts `count` values, rounding to nearest even. From fp64 to bf16 by way of fp32.
void convert_values(DType from, const void* source, DType to, void* target, std::int64_t count);

/// IEEE half precision to fp32, exactly.
void widen_half(const void* source, void* target, std::int64_t count);

/// Index of the first NaN or infinity, if there is one.
std::optional<std::int64_t> find_non_finite(DType type, const void* values, std::int64_t count);

/// Whether a view has this shape.
bool has_shape(const AnyIn& view, const std::vector<std::int64_t>& shape);

}  // namespace konclave
