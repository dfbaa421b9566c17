// abort_program FAULT PLACE FIFO: when all ranks are there the last one fails as FAULT says, while
// the others sit at PLACE, one of them with the named pipe FIFO that nobody writes to. With FAULT
// "none" it hangs instead. Each rank prints "pid N"; destructors of objects that are alive in the
// end, and ranks that get away from PLACE, would print "unwound".

#include "base/error.hpp"
#include "checkpoints/tensor_file.hpp"
#include "comm/communicator.hpp"
#include "comm/environment.hpp"
#include "comm/mpi_transport.hpp"
#include "tensor/arena.hpp"

#include <mpi.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <thread>
#include <unistd.h>

namespace {

using konclave::Communicator;
using konclave::ExitCode;

struct Alive {
  ~Alive() { std::puts("unwound"); }
};

/// What mpirun and a shell send. A rank with run's handlers, which only take note, is no deafer.
void ignore_signals() {
  for (const int number : {SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGUSR1}) {
    std::signal(number, SIG_IGN);
  }
}

/// In the midst of a collective that the others do not join.
void fail_with_a_request(const konclave::Transport& transport) {
  using namespace konclave;
  const ExecSpace exec;
  MemoryAccount account;
  Arena arena(account, MemoryClass::buffers, "abort");
  const AnyView send = arena.make(DType::fp32, 2, 3);
  const AnyView receive = arena.make(DType::fp32, 2 * transport.size(), 3);
  [[maybe_unused]] const Request pending = transport.start_all_gather(exec, send, receive);
  fail("no space on the disk", ExitCode::io);
}

/// By an error of MPI itself, which it must hand to us.
void fail_with_a_message(const konclave::Transport& transport) {
  using namespace konclave;
  const ExecSpace exec;
  MemoryAccount account;
  Arena arena(account, MemoryClass::buffers, "abort");
  const AnyView send = arena.make(DType::fp32, 2, 3), receive = arena.make(DType::fp32, 1, 3);
  Request sent = transport.start_send(exec, send, transport.rank(), 0);
  transport.start_receive(exec, receive, transport.rank(), 0).wait(exec);
}

void fail_as(const std::string& fault, const konclave::Transport& transport) {
  using konclave::fail;
  if (fault == "none") std::this_thread::sleep_for(std::chrono::hours(1));
  if (fault == "input") fail("no such file: 'gone.txt'", ExitCode::input);
  if (fault == "internal") fail("sizes differ");
  if (fault == "standard") throw std::out_of_range("index 7 of 5");
  if (fault == "io_thread") konclave::locate_tensors("gone.h5", {});
  if (fault == "request") fail_with_a_request(transport);
  if (fault == "message") fail_with_a_message(transport);
  throw 42;
}

void sit(const Communicator& world, const Communicator& part, const std::string& place,
         const char* fifo) {
  if (place == "part") part.barrier();
  if (place == "receive") {
    int value = 0;
    MPI_Recv(&value, 1, MPI_INT, world.size() - 1, 0, world.handle(), MPI_STATUS_IGNORE);
  }
  if (place == "file") konclave::locate_tensors(fifo, {});
  world.barrier();
}

}  // namespace

int main(int argc, char** argv) {
  konclave::MpiEnvironment environment(argc, argv);
  konclave::install_terminate_handler();
  const Kokkos::ScopeGuard kokkos(argc, argv);
  if (argc != 4) konclave::fail("want FAULT PLACE FIFO", ExitCode::usage);
  const std::string fault = argv[1], place = argv[2];
  const Communicator world = Communicator::world();
  const Communicator part = Communicator::split(world.handle(), world.rank() == 0 ? 0 : 1, "part");
  const konclave::MpiTransport transport(Communicator::duplicate(world.handle(), "transport"));
  const Alive alive;
  if (place == "deaf") ignore_signals();
  std::printf("pid %d\n", static_cast<int>(::getpid()));
  std::fflush(stdout);
  world.barrier();
  if (world.rank() == world.size() - 1) {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));  // the others sit down
    fail_as(fault, transport);
  }
  sit(world, part, place, argv[3]);
  return 0;
}
