#include "run/step_limit.hpp"

#include <algorithm>

namespace konclave {

namespace {

constexpr std::size_t kSteps = 15;  ///< that the median is of
constexpr double kMedians = 20, kLeast = 600;
constexpr double kCheckpointSteps = 10, kLeastOfCheckpoint = 3600;

}  // namespace

void StepLimit::add(double seconds) {
  if (last_.size() < kSteps) {
    last_.push_back(seconds);
    return;
  }
  last_[next_] = seconds;
  next_ = (next_ + 1) % kSteps;
}

double StepLimit::of_step() const {
  if (timeout_ >= 0) return timeout_;
  if (last_.empty()) return 0;
  std::vector<double> ordered = last_;
  const auto middle = ordered.begin() + static_cast<std::ptrdiff_t>(ordered.size() / 2);
  std::nth_element(ordered.begin(), middle, ordered.end());
  return std::max(kLeast, kMedians * *middle);
}

double StepLimit::of_checkpoint() const {
  return watches() ? std::max(kLeastOfCheckpoint, kCheckpointSteps * of_step()) : 0;
}

}  // namespace konclave
