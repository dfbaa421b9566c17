#include "run/signals.hpp"

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

}  // namespace

StopSignals::StopSignals() {
  received_signal = 0;
  for (const int number : kSignals) std::signal(number, note_signal);
}

StopSignals::~StopSignals() {
  for (const int number : kSignals) std::signal(number, SIG_DFL);
}

int StopSignals::received() const { return received_signal; }

}  // namespace konclave
