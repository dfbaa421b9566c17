// Uses the installed package from outside: headers are found, libraries link, the version is the
// one that was built.
#include "base/error.hpp"
#include "base/version.hpp"

#include <iostream>
#include <string>

int main() {
  const std::string version(konclave::version());
  konclave::require(!version.empty(), "the package states its version");
  std::cout << "Konclave " << version << '\n';
}
