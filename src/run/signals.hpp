#pragma once

namespace konclave {

/// Turns SIGTERM, SIGUSR1 and SIGINT into a request to save and stop, from construction to
/// destruction. A second SIGINT ends the process at once. One object at a time.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// Number of the signal that came first; 0 when none came.
  int received() const;
};

}  // namespace konclave
