#pragma once

#include <string_view>

namespace konclave {

/// A place where the tests seed a mistake, to see that they would notice it. Always false: the
/// compiler removes what depends on it. The tests build a second program against a header of the
/// same name (tests/support/faulty/base/fault.hpp) that asks the environment.
constexpr bool fault(std::string_view) { return false; }

}  // namespace konclave
