// abort_program KIND: the last rank throws an exception of that kind, the others wait for it in a
// barrier. Destructors of objects that are alive then would print "unwound".

#include "base/error.hpp"
#include "comm/communicator.hpp"
#include "comm/environment.hpp"

#include <cstdio>
#include <stdexcept>
#include <string>

namespace {

struct Alive {
  ~Alive() { std::puts("unwound"); }
};

void fail_as(const std::string& kind) {
  using konclave::ExitCode;
  if (kind == "input") konclave::fail("no such file: 'gone.txt'", ExitCode::input);
  if (kind == "internal") konclave::fail("sizes differ");
  if (kind == "standard") throw std::out_of_range("index 7 of 5");
  throw 42;
}

}  // namespace

int main(int argc, char** argv) {
  konclave::MpiEnvironment environment(argc, argv);
  konclave::install_terminate_handler();
  const konclave::Communicator world = konclave::Communicator::world();
  const Alive alive;
  if (world.rank() == world.size() - 1) fail_as(argc > 1 ? argv[1] : "");
  world.barrier();
  return 0;
}
