#include "train/boundary.hpp"

#include "base/error.hpp"

#include <utility>

namespace konclave {

Boundary::Boundary(MemoryAccount& account, const std::string& label)
    : memory(account, MemoryClass::activations, label) {}

std::unique_ptr<Boundary> BoundaryPool::take(const ExecSpace& exec, int most) {
  const bool one_is_idle = !free_.empty() && !free_.front()->on_its_way;
  if (!one_is_idle && made_ < most) {
    ++made_;
    return std::make_unique<Boundary>(account_, label_);
  }
  require(!free_.empty(), label_ + ": more of them are in use than the schedule says");
  std::unique_ptr<Boundary> boundary = std::move(free_.front());
  free_.pop_front();
  if (boundary->on_its_way) boundary->on_its_way->wait(exec);
  boundary->on_its_way.reset();
  boundary->memory.rewind({});
  return boundary;
}

void BoundaryPool::poll() {
  for (const auto& boundary : free_) {
    if (boundary->on_its_way) boundary->on_its_way->poll();
  }
}

void BoundaryPool::wait(const ExecSpace& exec) {
  for (const auto& boundary : free_) {
    if (!boundary->on_its_way) continue;
    boundary->on_its_way->wait(exec);
    boundary->on_its_way.reset();
  }
}

Arrivals::Arrivals(std::vector<PipelineWork> expected, Start start)
    : expected_(std::move(expected)), start_(std::move(start)) {
  start_next();
}

void Arrivals::start_next() {
  if (started_ < expected_.size()) next_ = start_(expected_[started_++]);
}

std::unique_ptr<Boundary> Arrivals::receive(const ExecSpace& exec, const PipelineWork& work) {
  require(next_ != nullptr && expected_[started_ - 1] == work,
          "a pipeline stage does its work in another order than that of its schedule");
  std::unique_ptr<Boundary> arrived = std::move(next_);
  arrived->on_its_way->wait(exec);
  arrived->on_its_way.reset();
  start_next();
  return arrived;
}

void Arrivals::poll() {
  if (next_ != nullptr) next_->on_its_way->poll();
}

}  // namespace konclave
