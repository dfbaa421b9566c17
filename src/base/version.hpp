#pragma once

#include <string_view>

namespace konclave {

/// Version of the code, "MAJOR.MINOR.PATCH".
std::string_view version();
/// `git describe` of the source tree at configure time, or "unknown".
std::string_view source_revision();
/// Compiler, build type and flags of this binary in one line.
std::string_view build_description();
/// Whether ranks compare each collective before they begin it (comm/checked_transport.hpp): option
/// KONCLAVE_CHECK_COLLECTIVES of CMake.
bool checks_collectives();

}  // namespace konclave
