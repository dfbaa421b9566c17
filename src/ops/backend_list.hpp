#pragma once

#include "ops/op_table.hpp"

namespace konclave {

/// The offers of all backends of this build. Defined by a file that CMake generates from
/// KONCLAVE_BACKENDS (library Konclave::backends).
OpTable built_backends();

}  // namespace konclave
