#include "run/signals.hpp"

#include "base/error.hpp"

#include <csignal>

namespace konclave {

namespace {

// A handler can reach nothing but static memory: the one exception to "no globals".
volatile std::sig_atomic_t received_signal = 0;

extern "C" void note_signal(int number) {
  if (received_signal == 0) received_signal = number;
  if (number == SIGINT) std::signal(SIGINT, SIG_DFL);  // the next one is in earnest
}

constexpr int kSignals[] = {SIGTERM, SIGUSR1, SIGINT};
constexpr std::size_t kStackBytes = std::size_t{64} << 10;

}  // namespace

StopSignals::StopSignals() : stack_(kStackBytes) {
  received_signal = 0;
  // Handlers run on a stack of their own: generated kernels of matrix libraries (oneDNN 2.6 for
  // AVX2) keep data below the stack pointer, where a handler's frame would overwrite it.
  stack_t stack{};
  stack.ss_sp = stack_.data();
  stack.ss_size = stack_.size();
  require(::sigaltstack(&stack, nullptr) == 0, "no stack for signal handlers can be had");
  struct sigaction action {};
  action.sa_handler = note_signal;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  for (const int number : kSignals) ::sigaction(number, &action, nullptr);
}

StopSignals::~StopSignals() {
  for (const int number : kSignals) std::signal(number, SIG_DFL);
  stack_t none{};
  none.ss_flags = SS_DISABLE;
  ::sigaltstack(&none, nullptr);
}

int StopSignals::received() const { return received_signal; }

}  // namespace konclave
