#pragma once

#include <vector>

namespace konclave {

/// Turns SIGTERM, SIGUSR1 and SIGINT into a request to save and stop, from construction to
/// destruction. A second SIGINT ends the process at once. One object at a time, made and destroyed
/// by the main thread, which is the one that signals of a process go to.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// Number of the signal that came first; 0 when none came.
  int received() const;

 private:
  std::vector<char> stack_;
};

}  // namespace konclave
