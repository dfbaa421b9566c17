#pragma once

#include <string>

namespace konclave::tiles {

/// "", or why this process cannot use the tiles of its CPU. The first call asks the kernel for
/// their memory, once for all threads of the process.
std::string why_no_tiles();

}  // namespace konclave::tiles
