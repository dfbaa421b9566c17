#pragma once

#include "run/compare.hpp"

#include <string>

namespace konclave {

/// A comparison as tables for people.
std::string describe_comparison(const Comparison& comparison);

}  // namespace konclave
