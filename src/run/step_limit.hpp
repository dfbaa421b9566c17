#pragma once

#include <cstddef>
#include <vector>

namespace konclave {

/// fault.step_timeout as seconds that parts of a run may take; 0 is for ever. "auto" goes by the
/// steps of this run so far: pass the same times on all ranks, so that all have the same limits.
class StepLimit {
 public:
  /// As FaultConfig has it.
  explicit StepLimit(double timeout) : timeout_(timeout) {}

  bool watches() const { return timeout_ != 0; }
  /// The time of a step that has ended.
  void add(double seconds);

  /// Of a step or a micro-batch of a validation. With "auto" 20 times the median of the last steps
  /// and at least 10 minutes, and nothing before there was a step: the first may have to wait for
  /// much.
  double of_step() const;
  /// Of a checkpoint, however slow the disk: ten times as long, and at least an hour.
  double of_checkpoint() const;

 private:
  double timeout_;
  std::vector<double> last_;  ///< a ring
  std::size_t next_ = 0;
};

}  // namespace konclave
