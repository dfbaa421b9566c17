#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace konclave {

/// What the kernel says of the processor.
struct Cpu {
  std::string model;               ///< "": unknown
  std::vector<std::string> flags;  ///< "avx2", "amx_bf16", ...

  bool has(std::string_view flag) const;
  /// Of the units that matter to products, those that there are.
  std::vector<std::string> product_units() const;
};
Cpu this_cpu();

}  // namespace konclave
