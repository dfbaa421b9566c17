#pragma once

#include <string>
#include <vector>

namespace konclave {

/// The files that paths and globs (* ? [a-z], per folder) stand for: in the order given, the
/// matches of one glob sorted by byte value, folders left out. A path that exists is never a glob.
/// Throws Error(input) naming what is missing or matches nothing.
std::vector<std::string> expand_files(const std::vector<std::string>& paths_and_globs);

}  // namespace konclave
