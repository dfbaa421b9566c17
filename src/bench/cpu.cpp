#include "bench/cpu.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>

namespace konclave {

bool Cpu::has(std::string_view flag) const {
  return std::find(flags.begin(), flags.end(), flag) != flags.end();
}

std::vector<std::string> Cpu::product_units() const {
  std::vector<std::string> units;
  for (const char* unit : {"fma", "avx2", "avx512f", "avx512_bf16", "amx_bf16"}) {
    if (has(unit)) units.emplace_back(unit);
  }
  return units;
}

Cpu this_cpu() {
  Cpu cpu;
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string value = line.substr(std::min(colon + 2, line.size()));
    if (line.starts_with("model name") && cpu.model.empty()) cpu.model = value;
    if (line.starts_with("flags") && cpu.flags.empty()) {
      std::istringstream words(value);
      for (std::string word; words >> word;) cpu.flags.push_back(word);
    }
  }
  return cpu;
}

}  // namespace konclave
